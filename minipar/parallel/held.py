r"""What a rank holds of the named arrays of a training run, whatever the layout.

    Held("model/up.weight", array, local=(8, 12))                     all of it
    Held(..., array, local=(8, 12), first=40)                         a flat range of it (ZeRO)
    Held(..., array, local=(8, 4), cut=Cut(1, 12, ...))               a slice of it (tensor)
    Held(..., array, local=(8, 4), first=16, cut=Cut(1, 12, ...))     a flat range of a slice

The arrays are those that training works with, not copies. So one list serves both directions: a
checkpoint is written from it, and read into it.

`views` cuts what is held into boxes of the whole array; these know nothing of layouts any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array
from minipar.parallel.boxes import Box, staircase, whole


class Cut(NamedTuple):
    """Along an axis, of length n in the whole, the local array has some spans."""

    axis: int
    n: int
    spans: tuple[tuple[int, int, int], ...]  # from where in the local array, in the whole, how many


class Held(NamedTuple):
    """An array, or what this rank has of it."""

    name: str  # model/PARAMETER, or optimizer/PARAMETER/SLOT
    array: Array
    local: tuple[int, ...]  # the shape of the local tensor
    first: int = 0  # where in the flattened local tensor the array begins
    cut: Cut | None = None
    equal: bool = True  # if several ranks have it they agree; else the first of them is right

    @property
    def parameter(self) -> str:
        return self.name.split("/")[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        if self.cut is None:
            return self.local
        axis = self.cut.axis
        return (*self.local[:axis], self.cut.n, *self.local[axis + 1 :])


def views(held: Held) -> Iterator[tuple[Box, Array]]:
    """Boxes of the whole array, and of each the view of what is held that has its numbers."""
    for box, block in _blocks(held):
        if held.cut is None:
            yield box, block
            continue
        axis = held.cut.axis
        for here, there, count in held.cut.spans:
            span = whole(held.local)
            span = Box(
                (*span.start[:axis], here, *span.start[axis + 1 :]),
                (*span.stop[:axis], here + count, *span.stop[axis + 1 :]),
            )
            part = box.meet(span)
            if part is not None:
                yield part.moved(axis, there - here), block[part.inside(box)]


def _blocks(held: Held) -> Iterator[tuple[Box, Array]]:
    """Boxes of the local tensor."""
    if held.array.shape == held.local:
        yield whole(held.local), held.array
        return
    flat, start = held.array.reshape(-1), 0
    for box in staircase(held.local, held.first, held.first + held.array.size):
        yield box, flat[start : start + box.size].reshape(box.shape)
        start += box.size


def weights(named: Iterable[tuple[str, Any]]) -> list[Held]:
    """Whole parameters.  Those that are not trained may have drifted apart: the first counts."""
    return [
        Held(f"model/{name}", x.data, x.shape, equal=bool(x.requires_grad)) for name, x in named
    ]


def state(optimizer: Any) -> list[Held]:
    """What an optimizer keeps for whole parameters, and the number of its steps (to be read)."""
    arrays = [
        Held(f"optimizer/{name}/{slot}", array, array.shape)
        for name, slots in optimizer.state.items()
        for slot, array in slots.items()
    ]
    return [steps(optimizer), *arrays]


def steps(optimizer: Any) -> Held:
    """Not alive: who loads sets `optimizer.steps`."""
    return Held("optimizer/step", np.asarray(optimizer.steps), (), equal=False)
