"""Batches from a source that need not end, dealt out to ranks, without anyone holding it whole.

Examples are cut into global batches in the order in which they come, and rank r takes the r-th part
of each. There are two ways to get it there:

    every rank reads    [ 0 0 1 1 | 0 0 1 1 | ...      a file that all can open: each passes over
                                                       the rows of others, nothing is sent
    one rank reads      [ whole ] -> cut -> deal       a pipe, a generator with side effects: what
                                                       deals is the caller's, such as a scatter

A thread reads and collates ahead (data.prefetch). In memory are the batches that wait (`ahead`),
the one that is being put together, and the one that the caller has. Rows that do not fill a last
batch are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np

from minipar.data.prefetch import Prefetch
from minipar.data.sampler import rows_of
from minipar.data.sources import Source, Wait
from minipar.errors import UsageError

Batch = Any  # an array, or a tuple of batches; axis 0 of every array is the rows


class Stream:
    """An iterator over batches.  `with` or `close()` ends its thread."""

    def __init__(
        self,
        source: Source,
        batch: int,
        collate: Callable[[list[Any]], Batch] | None = None,
        rows: range | None = None,
        start: Any = None,
        ahead: int = 2,
    ) -> None:
        """batch: the rows of a global batch.  collate: makes one of examples (None: `stack`).

        rows:  which of them this rank keeps, `rows_of(batch, rank, ranks)`; None: all.
        start: the `position` of a stream from which this one goes on.
        ahead: how many batches may wait.
        """
        rows = range(batch) if rows is None else rows
        if not (batch >= 1 and ahead >= 1 and rows and rows[0] >= 0 and rows[-1] < batch):
            raise UsageError(
                f"A stream needs batch and ahead of 1 or more, and rows within the batch; "
                f"got batch={batch}, ahead={ahead}, rows={rows}."
            )
        self.batch, self.rows = batch, rows
        self.position = start  # after the last batch that was taken: what to save
        self._batches = Prefetch(_batches(source(start), batch, collate or stack, rows), ahead)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Batch:
        batch, self.position = next(self._batches)
        return batch

    def close(self) -> bool:
        """End the thread.  False: it hangs in a call of the source's own, and ends with that."""
        return self._batches.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _batches(
    examples: Iterator[Any], batch: int, collate: Callable[[list[Any]], Batch], rows: range
) -> Generator[Any, None, None]:
    """(a rank's rows of a batch, the position after the batch), and the source's `Wait`."""
    kept, n = [], 0
    for item in examples:
        if isinstance(item, Wait):
            yield item
            continue
        if n in rows:
            kept.append(item[0])
        n += 1
        if n == batch:
            ready, kept, n = (collate(kept), item[1]), [], 0
            yield ready


def stack(examples: list[Any]) -> Batch:
    """An array of all examples, or a tuple of arrays if they are tuples."""
    if isinstance(examples[0], tuple):
        return tuple(stack(list(part)) for part in zip(*examples))
    return np.stack([np.asarray(example) for example in examples])


def dealt(
    stream: Stream | None, ranks: int, deal: Callable[[list[Batch] | None], Batch]
) -> Iterator[Batch]:
    """This rank's rows of each batch of a stream that one rank reads.

    stream: on the rank that reads; None on the others.
    deal:   deal(parts) on the rank that reads, deal(None) on the others, gives each rank its part
            of the list; parts are [None, ...] at the end. parallel.stream has one for a Group.
    """
    if stream is not None and len(stream.rows) != stream.batch:
        raise UsageError(f"The rank that deals must read all rows of a batch, not {stream.rows}.")
    every = [] if stream is None else [rows_of(stream.batch, r, ranks) for r in range(ranks)]
    while True:
        parts = None
        if stream is not None:
            whole = next(stream, None)
            parts = [None if whole is None else _cut(whole, rows) for rows in every]
        mine = deal(parts)
        if mine is None:
            return
        yield mine


def _cut(batch: Batch, rows: range) -> Batch:
    if isinstance(batch, tuple):
        return tuple(_cut(part, rows) for part in batch)
    return batch[rows.start : rows.stop]
