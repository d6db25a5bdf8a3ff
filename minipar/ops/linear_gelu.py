"""A linear layer and the gelu behind it as one op: the widest activation of a transformer.

Letters: n rows, i features in, o features out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minipar import cuda
from minipar.array import Array, array_module
from minipar.blocks import blocks, room
from minipar.ops.nonlinear import gelu, gelu_block
from minipar.ops.products import check_linear, linear
from minipar.tensor import Tensor, record


def linear_gelu_definition(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """z = gelu(x @ w + b)."""
    return gelu(linear(x, w, b))


def linear_gelu(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """`linear_gelu_definition`.   x: [..., i]   w: [i, o]   b: [o]   z: [..., o].

    Keeps x, w and the slope of gelu until backward, as the definition does. It saves passes over
    [n, o] arrays, which do not fit the cache: the bias is added, and summed up in backward, where
    gelu has the block at hand, and the slope takes the place of the product.
    """
    check_linear(x, w, b)
    parents = (x, w) if b is None else (x, w, b)
    if cuda.fast(*(p.data for p in parents)):
        z, back = cuda.linear_gelu(x.data, w.data, None if b is None else b.data)
        return record(z, parents, back)
    xp, (i, o), n = array_module(x.data), w.shape, math.prod(x.shape[:-1])
    slope = x.data.reshape(n, i) @ w.data
    z = xp.empty_like(slope)
    kept = any(p.requires_grad for p in parents)
    for rows in blocks(len(z), o * z.itemsize, room(z)):
        y = slope[rows]
        if b is not None:
            y += b.data
        gelu_block(y, z[rows], y if kept else None)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dy, db = _times_slope(dz.reshape(n, o), slope, wanted[-1] and b is not None)
        dx = (dy @ w.data.T).reshape(x.shape) if wanted[0] else None
        dw = x.data.reshape(n, i).T @ dy if wanted[1] else None
        return (dx, dw) if b is None else (dx, dw, db)

    return record(z.reshape(*x.shape[:-1], o), parents, vjp)


def _times_slope(dz: Array, slope: Array, want_sum: bool) -> tuple[Array, Array | None]:
    """dy = dz · slope, and db = Σ dy over the rows."""
    xp = array_module(dz)
    dy = xp.empty_like(slope)
    db = xp.zeros(slope.shape[1], slope.dtype) if want_sum else None
    for rows in blocks(len(dy), dy.shape[1] * dy.itemsize, room(dy)):
        xp.multiply(dz[rows], slope[rows], out=dy[rows])
        if db is not None:
            db += dy[rows].sum(axis=0)
    return dy, db
