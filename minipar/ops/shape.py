"""Other views of the same numbers: reshape, transpose, indexing, concatenation.

None of them keeps an array until backward, only shapes and indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from minipar.array import Array, array_module, describe
from minipar.errors import ShapeMismatch, UsageError
from minipar.tensor import Tensor, record


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: reshape(x, 2, -1) or reshape(x, (2, -1))."""
    target = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
    known = math.prod(n for n in target if n != -1)
    fits = x.data.size == known if -1 not in target else known and x.data.size % known == 0
    if not fits or target.count(-1) > 1:
        raise ShapeMismatch(
            f"reshape: {describe(x.data)} has {x.data.size} elements, {list(target)} does not."
        )
    before = x.shape
    return record(x.data.reshape(target), (x,), lambda dz, wanted: (dz.reshape(before),))


def transpose(x: Tensor, *axes: Any) -> Tensor:
    """Axes in another order, all reversed if none is given.   z is a view."""
    order = tuple(axes[0]) if len(axes) == 1 and not isinstance(axes[0], int) else axes
    order = order or tuple(reversed(range(x.ndim)))
    order = tuple(a % x.ndim for a in order)
    if sorted(order) != list(range(x.ndim)):
        raise ShapeMismatch(f"transpose: {describe(x.data)} has no axes {list(axes)} to order.")
    back = tuple(order.index(a) for a in range(x.ndim))
    return record(x.data.transpose(order), (x,), lambda dz, wanted: (dz.transpose(back),))


def getitem(x: Tensor, index: Any) -> Tensor:
    """z = x[index], as NumPy indexes: numbers, slices, None, ..., masks, integer arrays.

    An element that the index names several times gets the sum of their gradients.
    """
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(p.data if isinstance(p, Tensor) else p for p in parts)
    shape = x.shape
    plain = all(p is None or p is ... or isinstance(p, int | slice) for p in parts)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = array_module(dz).zeros(shape, dz.dtype)
        if plain:
            dx[parts] = dz
            return (dx,)
        xp = array_module(dz)
        flat = xp.arange(dx.size).reshape(shape)[parts].reshape(-1)  # where each came from
        order = xp.argsort(flat, kind="stable")
        places, first = xp.unique(flat[order], return_index=True)
        if len(places):
            dx.reshape(-1)[places] = xp.add.reduceat(dz.reshape(-1)[order], first)
        return (dx,)

    try:
        z = x.data[parts]
    except IndexError as error:
        raise ShapeMismatch(f"getitem: {describe(x.data)}: {error}") from None
    return record(z, (x,), vjp)


def concat(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors one after another along an axis; their other axes are equal."""
    if not xs:
        raise UsageError("concat needs at least one tensor.")
    axis %= xs[0].ndim
    rest = [x.shape[:axis] + x.shape[axis + 1 :] for x in xs]
    if any(r != rest[0] for r in rest):
        raise ShapeMismatch(
            f"concat along axis {axis}: {', '.join(describe(x.data) for x in xs)}: "
            "all other axes must be equal."
        )
    stops = list(accumulate(x.shape[axis] for x in xs))[:-1]

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        parts = array_module(dz).split(dz, stops, axis=axis)
        return [part if want else None for part, want in zip(parts, wanted)]

    z = array_module(*(x.data for x in xs)).concatenate([x.data for x in xs], axis=axis)
    return record(z, tuple(xs), vjp)
