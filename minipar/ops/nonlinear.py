"""Functions of one element that bend the line: tanh, relu, gelu."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minipar.array import Array, array_module
from minipar.blocks import blocks
from minipar.tensor import Tensor, record

GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715


def tanh(x: Tensor) -> Tensor:
    """z = tanh x.   Keeps z until backward."""
    z = array_module(x.data).tanh(x.data)
    return record(z, (x,), lambda dz, wanted: (dz * (1 - z * z),))


def relu(x: Tensor) -> Tensor:
    """z = max(x, 0).   Keeps z until backward; the slope at 0 is 0."""
    z = array_module(x.data).maximum(x.data, 0)
    return record(z, (x,), lambda dz, wanted: (dz * (z > 0),))


def gelu_definition(x: Tensor) -> Tensor:
    """z = x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))   (Hendrycks & Gimpel 2016, tanh form)."""
    u = GELU_SCALE * (x + GELU_CUBIC * x**3)
    return 0.5 * x * (1 + tanh(u))


def gelu(x: Tensor) -> Tensor:
    """`gelu_definition`, in blocks that fit the cache.   Keeps the slope dz/dx until backward.

    With u as above and w = (1 + tanh u) / 2, z = x · w and the slope is w + z · (1 - w) · 2 du/dx.
    It is computed here, where w is at hand, so that backward is one multiplication.
    """
    xp = array_module(x.data)
    flat = xp.ascontiguousarray(x.data).reshape(-1)
    z, slope = xp.empty_like(flat), xp.empty_like(flat) if x.requires_grad else None
    for part in blocks(flat.size, flat.itemsize):
        _gelu_block(flat[part], z[part], None if slope is None else slope[part])

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        assert slope is not None
        return (dz * slope.reshape(dz.shape),)

    return record(z.reshape(x.shape), (x,), vjp)


def _gelu_block(x: Array, z: Array, slope: Array | None) -> None:
    """Fill z and (if it is an array) slope. In as few passes as possible."""
    xp = array_module(x)
    square = x * x
    w = square * (GELU_SCALE * GELU_CUBIC)
    w += GELU_SCALE
    w *= x  # u
    xp.tanh(w, out=w)
    w *= 0.5
    w += 0.5
    xp.multiply(x, w, out=z)
    if slope is not None:
        square *= 6 * GELU_CUBIC * GELU_SCALE
        square += 2 * GELU_SCALE  # 2 du/dx
        xp.multiply(z, w, out=slope)
        xp.subtract(z, slope, out=slope)
        slope *= square
        slope += w
