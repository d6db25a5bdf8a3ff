r"""Boxes: parts of an array that have a start and a stop on each axis.

    a flat range of a matrix [4, 6]      is a staircase of boxes, in the same order

    · · · · ■ ■      first = 4           · · · · A A
    ■ ■ ■ ■ ■ ■                          B B B B B B
    ■ ■ ■ ■ ■ ■                          B B B B B B
    ■ ■ · · · ·      last = 20           C C · · · ·

A rank holds slices of matrices (tensor parallel), or flat ranges of them (ZeRO), or flat ranges of
slices. As boxes of the whole array all of these speak one language, whatever the layout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MOST_BOXES = 4096  # of one array; the check that they are apart compares each with each


class Box(NamedTuple):
    """[start, stop) on each axis."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in zip(self.start, self.stop))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def meet(self, other: Box) -> Box | None:
        """What lies in both; None if there is nothing."""
        start = tuple(map(max, self.start, other.start))
        stop = tuple(map(min, self.stop, other.stop))
        return Box(start, stop) if all(a < b for a, b in zip(start, stop)) else None

    def inside(self, other: Box) -> tuple[slice, ...]:
        """Where it is in an array that holds the other."""
        return tuple(
            slice(a - origin, b - origin)
            for a, b, origin in zip(self.start, self.stop, other.start)
        )

    def moved(self, axis: int, by: int) -> Box:
        start, stop = list(self.start), list(self.stop)
        start[axis] += by
        stop[axis] += by
        return Box(tuple(start), tuple(stop))


def whole(shape: Sequence[int]) -> Box:
    return Box((0,) * len(shape), tuple(shape))


def staircase(shape: Sequence[int], first: int, last: int) -> list[Box]:
    """The elements first .. last-1 of an array, row by row, as at most 2·axes - 1 boxes."""
    if first >= last:
        return []
    if not shape:
        return [Box((), ())]
    rest = tuple(shape[1:])
    row = math.prod(rest)
    (a, x), (b, y) = divmod(first, row), divmod(last, row)
    if a == b:
        return _in_row(a, staircase(rest, x, y))
    found = []
    if x:
        found += _in_row(a, staircase(rest, x, row))
        a += 1
    if a < b:
        found.append(Box((a, *(0,) * len(rest)), (b, *rest)))
    return found + _in_row(b, staircase(rest, 0, y))


def _in_row(n: int, boxes: list[Box]) -> list[Box]:
    return [Box((n, *box.start), (n + 1, *box.stop)) for box in boxes]


def why_no_cover(shape: Sequence[int], boxes: Sequence[Box]) -> str | None:
    """What keeps the boxes from being the array, each element once; None: they are.

    Allocates nothing of the size of the array.
    """
    if len(boxes) > MOST_BOXES:
        return f"there are {len(boxes)} boxes, more than any layout has"
    for box in boxes:
        inside = len(box.start) == len(box.stop) == len(shape)
        if not inside or not all(0 <= a <= b <= n for a, b, n in zip(*box, shape)):
            return f"the box {list(box.start)} to {list(box.stop)} is not inside {list(shape)}"
    start = np.array([box.start for box in boxes], np.int64).reshape(len(boxes), len(shape))
    stop = np.array([box.stop for box in boxes], np.int64).reshape(len(boxes), len(shape))
    for n in range(len(boxes) - 1):
        apart = (start[n + 1 :] >= stop[n]) | (stop[n + 1 :] <= start[n])
        if not apart.any(axis=1).all():
            return f"the box {list(boxes[n].start)} to {list(boxes[n].stop)} overlaps another"
    missing = math.prod(shape) - sum(box.size for box in boxes)
    return f"{missing} of its numbers are in no box" if missing else None
