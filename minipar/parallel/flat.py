"""Many arrays as one vector, so that they travel as one message.

    up.weight [5, 7]   up.bias [7]   down.weight ...
    └──────────────────┴─────────────┴────────────── ...      [n]

Letters: n numbers in all arrays together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minipar.array import Array, array_module


def pack(arrays: Sequence[Array]) -> Array:
    """A copy of all arrays as one vector [n]."""
    if not arrays:
        return np.zeros(0, np.float32)
    return array_module(*arrays).concatenate([a.reshape(-1) for a in arrays])


def unpack(vector: Array, arrays: Sequence[Array]) -> None:
    """Write a vector [n] back into the arrays."""
    start = 0
    for a in arrays:
        a[...] = vector[start : start + a.size].reshape(a.shape)
        start += a.size


def is_here(x: Array) -> bool:
    """Whether this is an array, and not the shape of one that lies elsewhere (`nothing`)."""
    return x.flags.c_contiguous and getattr(x.flags, "writeable", True)


def nothing(like: Array) -> Array:
    """An array of this shape and dtype without memory: one nan, seen everywhere."""
    xp = array_module(like)
    return xp.broadcast_to(xp.full((), float("nan"), like.dtype), like.shape)
