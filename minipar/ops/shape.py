"""The same numbers elsewhere: reshape, transpose, indexing, broadcasting, cutting and joining."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from minipar.array import Array, array_module, beside, describe, extremes, index_beside
from minipar.errors import ShapeMismatch, UsageError
from minipar.segments import sum_to_table
from minipar.tensor import Tensor, places, plain, record, shown, unbroadcast


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: reshape(x, 2, -1) or reshape(x, (2, -1)).

    Keeps nothing until backward; z is a view where NumPy can make one.
    """
    target = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    known = math.prod(n for n in target if n != -1)
    fits = x.data.size == known if -1 not in target else known and x.data.size % known == 0
    if not fits or target.count(-1) > 1:
        raise ShapeMismatch(
            f"reshape: {shown(x)} has {x.data.size} elements, {list(target)} does not."
        )
    before = x.shape
    return record(x.data.reshape(target), (x,), lambda dz, wanted: (dz.reshape(before),))


def transpose(x: Tensor, *axes: Any) -> Tensor:
    """Axes in another order, all reversed if none is given.   Keeps nothing; z is a view."""
    order = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
    order = order or tuple(reversed(range(x.ndim)))
    order = places("transpose", x, order)
    if sorted(order) != list(range(x.ndim)):
        raise ShapeMismatch(f"transpose: {shown(x)} has no axes {list(axes)} to order.")
    back = tuple(order.index(a) for a in range(x.ndim))
    return record(x.data.transpose(order), (x,), lambda dz, wanted: (dz.transpose(back),))


def getitem(x: Tensor, index: Any) -> Tensor:
    """z = x[index], by numbers, slices, None, ..., masks, arrays.   Keeps the index until backward.

    An element that the index names several times gets the sum of their gradients. A GPU wraps
    integers out of bounds around; they are found if they come as NumPy arrays or lists.
    """
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(p.data if isinstance(p, Tensor) else p for p in parts)
    shape = x.shape
    plain = all(p is None or p is ... or isinstance(p, int | slice) for p in parts)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        xp, n = array_module(dz), math.prod(shape)
        if plain:
            dx = xp.zeros(shape, dz.dtype)
            dx[parts] = dz
            return (dx,)
        came_from = xp.arange(n).reshape(shape)[parts].reshape(-1)
        return (sum_to_table(came_from, dz.reshape(-1), n).reshape(shape),)

    try:
        parts = index_beside(parts, x.data)
        z = x.data[parts]
    except IndexError as error:
        raise ShapeMismatch(f"getitem: {shown(x)}: {error}") from None
    return record(z, (x,), vjp)


def concat(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors one after another along an axis; their other axes are equal.   Keeps nothing."""
    if not xs:
        raise UsageError("concat needs at least one tensor.")
    (axis,) = places("concat", xs[0], (axis,))
    rest = [x.shape[:axis] + x.shape[axis + 1 :] for x in xs]
    if any(r != rest[0] for r in rest) or any(x.ndim != xs[0].ndim for x in xs):
        raise ShapeMismatch(
            f"concat along axis {axis}: {', '.join(shown(x) for x in xs)}: "
            "all other axes must be equal."
        )
    stops = list(accumulate(x.shape[axis] for x in xs))[:-1]

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        parts = array_module(dz).split(dz, stops, axis=axis)
        return [part if want else None for part, want in zip(parts, wanted)]

    z = array_module(*(x.data for x in xs)).concatenate([x.data for x in xs], axis=axis)
    return record(z, tuple(xs), vjp)


def stack(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side, along a new axis.   Keeps nothing until backward."""
    if not xs:
        raise UsageError("stack needs at least one tensor.")
    if any(x.shape != xs[0].shape for x in xs):
        raise ShapeMismatch(f"stack: {', '.join(shown(x) for x in xs)}: all shapes must be equal.")
    (axis,) = places("stack", xs[0], (axis,), new=1)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return [dz[_along(axis, n)] if want else None for n, want in enumerate(wanted)]

    z = array_module(*(x.data for x in xs)).stack([x.data for x in xs], axis=axis)
    return record(z, tuple(xs), vjp)


def split(x: Tensor, sizes: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """x cut along an axis into so many equal parts, or into parts of these sizes.

    The parts are views. Keeps nothing until backward, where each part costs an array of the size of
    x, so this is for a few parts, not hundreds.
    """
    (axis,) = places("split", x, (axis,))
    n = x.shape[axis]
    if isinstance(sizes, int):
        sizes = [n // sizes] * sizes if sizes > 0 else []
    stops = list(accumulate(sizes, initial=0))
    if stops[-1] != n or any(size < 0 for size in sizes):
        raise ShapeMismatch(
            f"split: axis {axis} of {shown(x)} cannot be cut into the sizes {list(sizes)}: "
            f"they must add up to {n}."
        )
    return [getitem(x, _along(axis, slice(a, b))) for a, b in pairwise(stops)]


def pad(x: Tensor, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """x with `value` around it.   Keeps nothing until backward.

    widths: one pair for each axis, how many values before and how many after it.
    """
    if len(widths) != x.ndim or any(w < 0 for pair in widths for w in pair):
        raise ShapeMismatch(
            f"pad: the widths {list(widths)} for {shown(x)}: there must be one pair (before"
            ", after) for each axis, none of them negative."
        )
    inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape))
    shape = tuple(before + n + after for (before, after), n in zip(widths, x.shape))
    z = array_module(x.data).full(shape, value, x.dtype)
    z[inside] = x.data
    return record(z, (x,), lambda dz, wanted: (dz[inside],))


def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x repeated along axes of length 1 and new ones in front.   Keeps nothing; z is a view."""
    before, target = x.shape, tuple(shape)
    lead = len(target) - x.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(before, target[lead:])):
        raise ShapeMismatch(f"broadcast_to: {shown(x)} cannot become {list(target)}.")
    z = array_module(x.data).broadcast_to(x.data, target)
    return record(z, (x,), lambda dz, wanted: (unbroadcast(dz, before),))


def gather(x: Tensor, index: Tensor | Array, axis: int = -1) -> Tensor:
    """z[.., j, ..] = x[.., index[.., j, ..], ..] along an axis.   Keeps the index until backward.

    NumPy's take_along_axis: x [.., n, ..], index [.., k, ..], z [.., k, ..], the other axes equal.
    dx is added up place by place along k, so that elements named several times get every gradient,
    in the same order on every machine; for large k `getitem` or `embedding` is faster.
    """
    at = plain(index)
    shape, xp = x.shape, array_module(x.data)
    (axis,) = places("gather", x, (axis,))
    others = (shape[:axis], shape[axis + 1 :])
    if at.dtype.kind not in "iu" or (at.shape[:axis], at.shape[axis + 1 :]) != others:
        raise ShapeMismatch(
            f"gather along axis {axis}: x is {shown(x)}, the index {describe(at)}: it must "
            "be of integers, its other axes as long as those of x."
        )
    low, high = extremes(at) if at.size else (0, -1)
    if low < 0 or high >= shape[axis]:
        raise ShapeMismatch(
            f"gather along axis {axis} of {shown(x)}: the indices run from {low} to "
            f"{high}, they must be in 0 .. {shape[axis] - 1}."
        )
    at = beside(at, x.data)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = xp.zeros(shape, dz.dtype)
        for j in range(at.shape[axis]):
            place = _along(axis, slice(j, j + 1))
            total = xp.take_along_axis(dx, at[place], axis) + dz[place]
            xp.put_along_axis(dx, at[place], total, axis)
        return (dx,)

    return record(xp.take_along_axis(x.data, at, axis), (x,), vjp)


def _along(axis: int, part: int | slice) -> tuple[int | slice, ...]:
    """The index that takes a part of one axis, and all of the axes before it."""
    return (*(slice(None),) * axis, part)
