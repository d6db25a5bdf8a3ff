"""Which examples step n trains on: a pure function of (seed, n), so nothing has to be saved.

epoch 0:  a permutation of all examples   [ batch | batch | batch | (rest, dropped) ]
epoch 1:  another permutation             [ batch | ...
                                             ^ of which each rank takes its own part
"""

from __future__ import annotations

import numpy as np

from minipar.errors import UsageError
from minipar.random import permutation


class Sampler:
    """n examples, `batch` of them in each step over all ranks, in an order drawn from seed."""

    def __init__(self, n: int, batch: int, seed: int = 0) -> None:
        if not 1 <= batch <= n:
            raise UsageError(
                f"A batch of {batch} cannot be taken from {n} examples; "
                "use a smaller batch, a smaller block, or more data."
            )
        self.n, self.batch, self.seed = n, batch, seed
        self._last = (-1, np.empty(0, np.int64))  # the epoch asked for last, and its order

    @property
    def steps_per_epoch(self) -> int:
        return self.n // self.batch

    def indices(self, step: int, rank: int = 0, ranks: int = 1) -> np.ndarray:
        """The examples of this rank in this step, int64 [batch / ranks]."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._last[0]:
            self._last = epoch, permutation(self.seed, "epoch", self.n, step=epoch)
        order = self._last[1]
        rows = self.rows(rank, ranks)
        start = within * self.batch
        return order[start + rows.start : start + rows.stop]

    def rows(self, rank: int = 0, ranks: int = 1) -> range:
        """Where this rank's part stands in the global batch; `random.Draw` asks for it."""
        return rows_of(self.batch, rank, ranks)


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
