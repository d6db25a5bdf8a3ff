"""What the ranks tell each other in a step, in a message that goes anyway: that of the last bucket.

    last bucket   [ gradients · · · · · | rows of rank 0, of rank 1, ... | a used, b used, ... ]

Each rank writes its own rows, zeros for those of the others, and 1 for each parameter that it has a
gradient for. All of it is added up together with the gradients. So afterwards all ranks know how
many rows each of them had, and on how many ranks each parameter has a gradient.

`shares.exchange` tells the same, and earlier, but with a message of its own. In a small model that
is a good part of what a step costs; what rides along costs next to nothing. (On a GPU `count` waits
for it, once in a step.)

A bucket of float16 or bfloat16 cannot carry it, for it counts no further than 2048 or 256. Then
there is one bucket more, of float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minipar.array import Array, array_module, to_numpy
from minipar.comm.group import Group
from minipar.parallel.buckets import Layout, Place
from minipar.parallel.shares import check_used, shares_of
from minipar.tensor import Tensor


def with_room(layout: Layout, n: int) -> tuple[Layout, Place]:
    """The layout with n numbers more at the end of its last bucket, and where they are."""
    buckets = list(layout.buckets)
    if not buckets or buckets[-1][1].itemsize < 4:
        buckets.append((0, np.dtype(np.float32)))
    start, dtype = buckets.pop()
    place = Place(len(buckets), start, start + n)
    return Layout(layout.places, [*buckets, (place.stop, dtype)]), place


class Ballot:
    """The end of the last bucket: `fill` before it is reduced, `count` afterwards."""

    def __init__(self, numbers: Array, named: Sequence[tuple[str, Tensor]], group: Group) -> None:
        """numbers: of length group.size + len(named), part of the bucket."""
        self.numbers, self.named, self.group = numbers, named, group
        self.rows = 0.0  # of all ranks, when they were last counted

    def fill(self, rows: float, used: Sequence[bool]) -> None:
        """used: whether this rank has a gradient for each parameter."""
        own = [0.0] * self.group.size
        own[self.group.rank] = rows
        told = np.array([*own, *used], self.numbers.dtype)
        self.numbers[...] = array_module(self.numbers).asarray(told)

    def count(self) -> np.ndarray:
        """The shares of the rows, float64 [p], the same on every rank.

        Raises: UsageError on all ranks, if there are no rows, or a parameter has no gradient.
        """
        told = to_numpy(self.numbers).astype(np.float64)
        p = self.group.size
        shares = shares_of(told[:p])
        check_used(self.named, told[p:], self.group)
        self.rows = float(told[:p].sum())
        return shares
