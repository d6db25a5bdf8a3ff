"""Functions of one element that bend the line: tanh, sigmoid, relu, gelu, silu."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from minipar import cuda
from minipar.array import Array, array_module
from minipar.blocks import blocks, room
from minipar.tensor import Tensor, record

GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715
LARGEST_EXPONENT = (11, 87, 708)  # of e, in floats of 2, 4 and 8 bytes; 1 / e^that is normal, too


def tanh(x: Tensor) -> Tensor:
    """z = tanh x.   Keeps z until backward."""
    z = array_module(x.data).tanh(x.data)
    return record(z, (x,), lambda dz, wanted: (dz * (1 - z * z),))


def sigmoid(x: Tensor) -> Tensor:
    """z = 1 / (1 + e^-x).   Keeps z until backward."""
    z = _sigmoid(x.data)
    return record(z, (x,), lambda dz, wanted: (dz * (z * (1 - z)),))


def _sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), from where e^-x is still a number: left of that it is 0, but for rounding."""
    z = array_module(x).maximum(x, -LARGEST_EXPONENT[x.itemsize.bit_length() - 2])
    z *= -1
    array_module(x).exp(z, out=z)
    z += 1
    array_module(x).divide(1, z, out=z)
    return z


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
    if cuda.fast(x.data):
        z, back = cuda.gelu(x.data)
        return record(z, (x,), back)
    return keeping_slope(x, gelu_block)


def gelu_block(x: Array, z: Array, slope: Array | None) -> None:
    """Fill z and (if it is an array) slope, which may be x. In as few passes as possible."""
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


def silu_definition(x: Tensor) -> Tensor:
    """z = x · sigmoid(x)   (also called swish: Elfwing et al. 2018, Ramachandran et al. 2017)."""
    return x * sigmoid(x)


def silu(x: Tensor) -> Tensor:
    """`silu_definition`, in blocks that fit the cache.   Keeps the slope dz/dx until backward.

    With s = sigmoid(x) the slope is s + z · (1 - s). The definition keeps x and s.
    """
    return keeping_slope(x, _silu_block)


def _silu_block(x: Array, z: Array, slope: Array | None) -> None:
    s = _sigmoid(x)
    array_module(x).multiply(x, s, out=z)
    if slope is not None:
        array_module(x).subtract(1, s, out=slope)
        slope *= z
        slope += s


def keeping_slope(x: Tensor, fill: Callable[[Array, Array, Array | None], None]) -> Tensor:
    """An op of one element, in blocks; fill(x, z, slope) writes a block of z and of dz/dx.

    The slope is computed in forward, where its parts are at hand (None: nobody wants it), so that
    backward is one multiplication.
    """
    xp = array_module(x.data)
    flat = xp.ascontiguousarray(x.data).reshape(-1)
    z, slope = xp.empty_like(flat), xp.empty_like(flat) if x.requires_grad else None
    for part in blocks(flat.size, flat.itemsize, room(flat)):
        fill(flat[part], z[part], None if slope is None else slope[part])

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        assert slope is not None
        return (dz * slope.reshape(dz.shape),)

    return record(z.reshape(x.shape), (x,), vjp)
