r"""Gradients leave as soon as they are final, each part to the rank that will need it.

    backward     head.w  head.b │ block 1 ...         │ block 0 ...
                      │    │    │  │  │  │            │
    bucket 0     [  copied in  ]│ full: reduce_scatter│
    bucket 1                    │ [   copied in      ]│ full: reduce_scatter

A parameter's gradient is copied into its bucket, and is gone from the parameter. A full bucket is
reduced while backward goes on, and then is gone, too: of the complete gradient this rank keeps its
slice. Before a new bucket is begun, the one under way is waited for, so one is there at a time (and
the gradient that is being copied).

Buckets leave in one order, which is that of all ranks, even where a rank gets a gradient late or
not at all. What was not used on this rank counts as zero, what was used on none is left alone.

Several backwards may send: what comes is added to the slice. So each gradient is kept as a slice
only, and each backward costs what one costs. In between, `no_sync` keeps all, and sends nothing.
When the step is over the ranks tell each other what they have sent. Each sends what another has,
and then what is still open anywhere, such as what other ranks have added to a gradient (stages of a
pipeline, to a weight that they share).

Sharing weights are needed before the first bucket leaves, which is before `sync_gradients(rows)`
can say them: where ranks have unequal rows, `announce(rows)` has to come before backward.
Paper: Rajbhandari et al. 2020, section 5.2; buckets as in Li et al. 2020, section 3.2.3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from minipar.array import Array
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.parallel.slices import Slice
from minipar.spans import hold
from minipar.sparse import RowGradient
from minipar.tensor import Tensor


class Reducer:
    """Brings the mean of the gradients of all ranks into the slices, during backward."""

    def __init__(self, slices: Sequence[Slice], group: Group) -> None:
        """slices: in the order in which backward completes their gradients."""
        self.slices, self.group = slices, group
        self.share = 1.0  # this rank's rows in parts of the mean number of rows
        self.used: set[str] = set()
        self._sending = True
        self._buckets: list[Array | None] = [None] * len(slices)
        self._missing = [set(s.flat.parameters) for s in slices]
        self._next = self._sent = 0
        self._under_way: tuple[Slice, Array, Any] | None = None  # with its bucket
        for i, s in enumerate(slices):
            for name, x in s.flat.parameters.items():
                x.when_final(partial(self._final, i, name))

    def zero_grad(self) -> None:
        self.used.clear()
        for s in self.slices:
            s.grad[...] = 0
            for x in s.flat.parameters.values():
                x.grad = None

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        self._sending = False
        try:
            yield
        finally:
            self._sending = True

    def announce(self, rows: float) -> None:
        """Say before backward how many rows this rank's loss is over (collective)."""
        self.share = share_of(rows, self.group.all_gather(np.array(float(rows))))

    def finish(self, rows: float) -> None:
        """Send what has not been sent; the slices then hold the mean, and the pieces show it.

        Raises: UsageError if the ranks have unequal rows, and the weights were others.
        """
        for i, s in enumerate(self.slices):
            for name, x in s.flat.parameters.items():
                if x.grad is not None:  # it came inside no_sync, or from elsewhere
                    self.used.add(name)
                    self._take(i, name, x)
        self._wait()
        names = [name for s in self.slices for name in s.flat.parameters]
        filled = [bucket is not None for bucket in self._buckets]
        told, used = agree(self.group, (rows, self.share, self._sent, *filled), names, self.used)
        self._complete(told[:, 2], told[:, 3:])
        self.share = 1.0
        right = [share_of(n, told[:, 0]) for n in told[:, 0]]
        if not np.allclose(told[:, 1], right):
            raise UsageError(
                f"rank {self.group.rank}/{self.group.size}: the ranks have {told[:, 0].tolist()} "
                "rows, but their gradients were sent as if these were others. They leave during "
                "backward here, so call announce(rows) on all ranks before it."
            )
        for s in self.slices:
            s.give_gradients(used)

    def _final(self, i: int, name: str, x: Tensor) -> None:
        self.used.add(name)
        if not self._sending:
            return
        self._take(i, name, x)
        self._missing[i].discard(name)
        while not self._missing[self._next]:
            self._send_next()

    def _take(self, i: int, name: str, x: Tensor) -> None:
        """Move a gradient into its bucket."""
        flat, bucket = self.slices[i].flat, self._buckets[i]
        if bucket is None:
            self._wait()
            bucket = self._buckets[i] = flat.zeros()
            hold("buffers", bucket)
        add_gradient(flat.view(bucket, name), x.grad)
        x.grad = None

    def _send_next(self) -> None:
        self._send(self._next)
        self._next, self._sent = (self._next + 1) % len(self.slices), self._sent + 1

    def _complete(self, sent: Array, filled: Array) -> None:
        """Send as many buckets as any rank has, and then those that are filled on any.

        sent: how many each rank has [p]; filled: which it still had then [p, buckets].
        """
        k, most = len(self.slices), int(sent.max())
        left = {
            int(i)
            for own, row in zip(sent, filled)
            for i in np.flatnonzero(row)
            if (i - own) % k >= most - own  # it is not among those that this rank has to send yet
        }
        while self._sent < most:
            self._send_next()
        for i in sorted(left):
            self._send(i)
        self._wait()
        self._next = self._sent = 0
        self._missing = [set(s.flat.parameters) for s in self.slices]

    def _send(self, i: int) -> None:
        s = self.slices[i]
        self._wait()
        bucket, self._buckets[i] = self._buckets[i], None
        if bucket is None:
            bucket = s.flat.zeros()
        if self.share != 1:
            bucket *= self.share
        total = self.group.reduce_scatter(bucket.reshape(-1), op="mean", async_op=True)
        self._under_way = s, bucket, total
        self._missing[i] = set(s.flat.parameters)

    def _wait(self) -> None:
        if self._under_way is not None:
            s, _, total = self._under_way
            s.grad += total.wait()
            self._under_way = None


def add_gradient(total: Array, g: Any) -> None:
    """total += g, which may be a RowGradient; in a flat array there are no missing rows."""
    if isinstance(g, RowGradient):
        g.add_to(total)
    else:
        total += g


def share_of(rows: float, rows_of_all: Array) -> float:
    """With this factor before the mean over ranks, it is the mean over rows."""
    mean = float(rows_of_all.mean())
    return rows / mean if mean else 0.0


def agree(
    group: Group, own: Sequence[float], names: Sequence[str], used: Collection[str]
) -> tuple[np.ndarray, set[str]]:
    """The numbers of all ranks [p, len(own)], and the names that were used on any of them.

    Cost: an all_gather of 8 bytes for each number and name.
    """
    table = group.all_gather(np.array([*own, *(name in used for name in names)], np.float64))
    some = table[:, len(own) :].any(axis=0)
    return table[:, : len(own)], {name for name, any_of in zip(names, some) if any_of}
