"""Many numbers become one, over axes: sum, mean, var, max, min, logsumexp.

`axis` is a number, several, or None for all. With keepdims the axes stay, with length 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minipar.array import Array, array_module
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, places, record, shown


def sum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """z = Σ x over the axes.   Keeps nothing until backward; dx is dz, stretched over them."""
    axes, shape = _axes("sum", x, axis), x.shape
    z = x.data.sum(axis=axes, keepdims=keepdims)
    return record(z, (x,), lambda dz, wanted: (_stretch(dz, shape, axes),))


def mean(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """z = Σ x / n over the axes, n elements each.   Keeps nothing until backward."""
    axes, shape = _axes("mean", x, axis), x.shape
    n = math.prod(x.shape[a] for a in axes)
    z = x.data.mean(axis=axes, keepdims=keepdims)
    return record(z, (x,), lambda dz, wanted: (_stretch(dz / n, shape, axes),))


def var(x: Tensor, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """z = Σ (x - mean)² / (n - ddof) over the axes, n elements each.   Keeps x until backward.

    ddof=0 is the mean square, as in NumPy and in normalization; ddof=1 the unbiased estimate from a
    sample. dx = 2 (x - mean) · dz / (n - ddof), the mean computed anew.
    """
    axes, shape = _axes("var", x, axis), x.shape
    n = math.prod(shape[a] for a in axes)
    if n <= ddof:
        raise ShapeMismatch(
            f"var: {shown(x)} has {n} elements over the axes {list(axes)}; it takes more "
            f"than ddof={ddof}."
        )

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = x.data - x.data.mean(axis=axes, keepdims=True)
        dx *= _stretch(dz * (2 / (n - ddof)), shape, axes)
        return (dx,)

    return record(x.data.var(axis=axes, ddof=ddof, keepdims=keepdims), (x,), vjp)


def max(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """z = the largest x over the axes.   Keeps x and z until backward; equal ones share dz."""
    return _extreme("max", x, axis, keepdims)


def min(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """z = the smallest x over the axes.   Keeps x and z until backward; equal ones share dz."""
    return _extreme("min", x, axis, keepdims)


def _extreme(name: str, x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    axes, shape = _axes(name, x, axis), x.shape
    _check_not_empty(name, x, axes)
    reduced = x.data.max if name == "max" else x.data.min
    z = array_module(x.data).asarray(reduced(axis=axes, keepdims=True))

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        chosen = x.data == z
        share = dz.reshape(z.shape) / chosen.sum(axis=axes, keepdims=True, dtype=dz.dtype)
        return (chosen * share,)

    return record(z if keepdims else z.reshape(_without(shape, axes)), (x,), vjp)


def logsumexp(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """z = ln Σ e^x over the axes.   Keeps x and the two parts of z until backward.

    z = largest x + ln Σ e^(x - largest x), which is finite. In backward, dx = dz · e^(x - z), the
    two parts are subtracted one after the other: their sum is rounded.
    """
    axes, shape = _axes("logsumexp", x, axis), x.shape
    _check_not_empty("logsumexp", x, axes)
    xp = array_module(x.data)
    largest = x.data.max(axis=axes, keepdims=True)
    rest = xp.log(xp.exp(x.data - largest).sum(axis=axes, keepdims=True))
    z = largest + rest

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = x.data - largest
        dx -= rest
        xp.exp(dx, out=dx)
        dx *= dz.reshape(largest.shape)
        return (dx,)

    return record(z if keepdims else z.reshape(_without(shape, axes)), (x,), vjp)


def _axes(op: str, x: Tensor, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return places(op, x, axis if isinstance(axis, tuple | list) else (axis,))


def _stretch(dz: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))
    return array_module(dz).broadcast_to(dz.reshape(kept), shape)


def _without(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for a, n in enumerate(shape) if a not in axes)


def _check_not_empty(op: str, x: Tensor, axes: tuple[int, ...]) -> None:
    if not math.prod(x.shape[a] for a in axes):
        raise ShapeMismatch(f"{op}: {shown(x)} has no elements along the axes {list(axes)}.")
