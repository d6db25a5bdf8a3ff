"""Rotary positions: where a position stands is an angle by which its channels are turned.

The c channels of a head are taken in pairs, each a complex number x1 + i·x2, and

    z1 + i·z2 = (x1 + i·x2) · e^(i · position · base^(-2n/c))        for pair n = 0 .. c/2 - 1

The product of a query and a key then depends on the difference of their positions only (Su et al.
2021, section 3.2). Pair n is made of the channels n and n + c/2, one of each half, as in GPT-NeoX
and Llama; the paper pairs neighbours, 2n and 2n + 1. That is the same in another order of channels,
but weights trained with one do not fit the other. Halves are whole slices, and so they are faster.
"""

from __future__ import annotations

from typing import Any

from minipar.array import Array, array_module, describe
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, record, shown


def rotary(x: Tensor, positions: Any, base: float = 10000.0) -> Tensor:
    """z = x, its channel pairs n = 0 .. c/2 - 1 turned by the angles position · base^(-2n/c).

    x, z: [b, t, h, c]   positions: integers [t] or [b, t]. Keeps cos and sin of the angles until
    backward, t·c/2 or b·t·c/2 numbers each. There the gradient is turned back.
    """
    xp = array_module(x.data)
    at = xp.asarray(positions.data if isinstance(positions, Tensor) else positions)
    if x.ndim != 4 or x.shape[3] % 2 or at.shape not in (x.shape[1:2], x.shape[:2]):
        raise ShapeMismatch(
            f"rotary: x is {shown(x)}, the positions {describe(at)}: x must be [batch, "
            "position, head, channel] with an even number of channels, positions [t] or [b, t]."
        )
    half = x.shape[3] // 2
    speed = float(base) ** (xp.arange(half, dtype="float64") / -max(half, 1))
    angle = (at[..., None] * speed)[..., None, :]  # [t, 1, c/2]: the same for all heads
    cos, sin = xp.cos(angle).astype(x.dtype), xp.sin(angle).astype(x.dtype)
    z = _turn(x.data, cos, sin)
    return record(z, (x,), lambda dz, wanted: (_turn(dz, cos, -sin),))


def _turn(x: Array, cos: Array, sin: Array) -> Array:
    half = x.shape[3] // 2
    x1, x2 = x[..., :half], x[..., half:]
    z = array_module(x).empty(x.shape, x.dtype)
    z[..., :half] = x1 * cos - x2 * sin
    z[..., half:] = x2 * cos + x1 * sin
    return z
