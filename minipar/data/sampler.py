"""Which examples step n trains on: a pure function of (seed, n), so nothing has to be saved.

epoch 0:  a permutation of all examples   [ batch | batch | batch | rest ]
epoch 1:  another permutation             [ batch | ...
                                             ^ of which each rank takes its own part

The rest, examples that are fewer than a batch, can be

    "drop"     left out; another permutation leaves out others
    "pad"      filled up with the first examples of the same epoch
    "short"    a smaller batch; ranks get unevenly many rows, and say so in sync_gradients(rows)

A run that goes on in the middle of an epoch asks for the step at which it stopped.
"""

from __future__ import annotations

import numpy as np

from minipar.errors import UsageError
from minipar.random import permutation

RESTS = ("drop", "pad", "short")


class Sampler:
    """n examples, `batch` of them in each step over all ranks, in an order drawn from seed."""

    def __init__(self, n: int, batch: int, seed: int = 0, rest: str = "drop") -> None:
        if not 1 <= batch <= n:
            raise UsageError(
                f"A batch of {batch} cannot be taken from {n} examples; "
                "use a smaller batch, a smaller block, or more data."
            )
        if rest not in RESTS:
            raise UsageError(f"The rest of an epoch is one of {', '.join(RESTS)}, not {rest!r}.")
        self.n, self.batch, self.seed, self.rest = n, batch, seed, rest
        self._last = (-1, np.empty(0, np.int64))  # the epoch asked for last, and its order

    @property
    def steps_per_epoch(self) -> int:
        return self.n // self.batch if self.rest == "drop" else -(-self.n // self.batch)

    def indices(self, step: int, rank: int = 0, ranks: int = 1) -> np.ndarray:
        """The examples of this rank in this step, int64 [batch / ranks], or fewer of a rest."""
        start = step % self.steps_per_epoch * self.batch
        rows = self.rows(rank, ranks, step)
        return self._order(step)[start + rows.start : start + rows.stop]

    def rows(self, rank: int = 0, ranks: int = 1, step: int = 0) -> range:
        """Where this rank's part stands in the global batch; `random.Draw` asks for it."""
        start = step % self.steps_per_epoch * self.batch
        if self.rest == "short" and start + self.batch > self.n:
            size = self.n - start
            return range(size * rank // ranks, size * (rank + 1) // ranks)
        return rows_of(self.batch, rank, ranks)

    def _order(self, step: int) -> np.ndarray:
        """The permutation of the epoch, with as much of its beginning again as a pad needs."""
        epoch = step // self.steps_per_epoch
        if epoch != self._last[0]:
            order = permutation(self.seed, "epoch", self.n, step=epoch)
            if self.rest == "pad":
                order = np.resize(order, self.steps_per_epoch * self.batch)
            self._last = epoch, order
        return self._last[1]


def rows_of(batch: int, rank: int, ranks: int) -> range:
    """Which rows of a global batch a rank takes: equally many each, one after the other."""
    each, rest = divmod(batch, ranks)
    if rest:
        near = [b for b in (each * ranks, (each + 1) * ranks) if b]
        raise UsageError(
            f"A batch of {batch} cannot be divided among {ranks} ranks; "
            f"use {' or '.join(map(str, near))}."
        )
    return range(rank * each, (rank + 1) * each)
