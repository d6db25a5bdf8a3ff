"""Sums and means over axes. Neither keeps an array until backward."""

from __future__ import annotations

import math
from typing import Any

from minipar.array import Array, array_module
from minipar.tensor import Tensor, record


def sum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """z = Σ x over the axes (all if None).   dx is dz, stretched over them."""
    axes, shape = _axes(x, axis), x.shape
    z = x.data.sum(axis=axes, keepdims=keepdims)
    return record(z, (x,), lambda dz, wanted: (_stretch(dz, shape, axes),))


def mean(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """z = Σ x / n over the axes (all if None), n the number of elements summed."""
    axes, shape = _axes(x, axis), x.shape
    n = math.prod(x.shape[a] for a in axes)
    z = x.data.mean(axis=axes, keepdims=keepdims)
    return record(z, (x,), lambda dz, wanted: (_stretch(dz / n, shape, axes),))


def _axes(x: Tensor, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(a % x.ndim for a in ((axis,) if isinstance(axis, int) else axis))


def _stretch(dz: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))
    return array_module(dz).broadcast_to(dz.reshape(kept), shape)
