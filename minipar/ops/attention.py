"""Causal self-attention of all heads, from the packed q, k, v to the mixed values.

    scores = q kᵀ / √c     each position t looks back at the positions 0..t
    p      = softmax(scores)
    z      = p v

Letters: b batch items, t positions, h heads, c channels a head. `qkv` is [b, t, 3, h, c], as one
matrix product for q, k and v leaves it. The products run on strided views of it, one batch item
(and as many heads as fit the cache) at a time: nothing is transposed in memory, and each block of
scores is made, normalized and used while it is in the cache.
Left out on purpose: dropout of p, and recomputing p in backward (FlashAttention), which would save
its b·h·t·t numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from minipar.array import Array, array_module, describe
from minipar.blocks import blocks
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, record

SCORE_BYTES = 1 << 19


def causal_attention(qkv: Tensor) -> Tensor:
    """z = softmax(q kᵀ / √c, over earlier positions) v.   qkv: [b, t, 3, h, c]   z: [b, t, h, c].

    Keeps qkv, z and p [b, h, t, t] until backward. With dp = dz vᵀ:
    ds = p · (dp - Σ dz·z) / √c,   dq = ds k,   dk = dsᵀ q,   dv = pᵀ dz.
    """
    if qkv.ndim != 5 or qkv.shape[2] != 3:
        raise ShapeMismatch(
            f"causal_attention: qkv is {describe(qkv.data)}; it must be [batch, position, 3, head, "
            "channel], where 3 stands for q, k and v."
        )
    xp = array_module(qkv.data)
    b, t, _, h, c = qkv.shape
    scale = qkv.dtype.type(c**-0.5)
    future = xp.triu(xp.full((t, t), -xp.inf, qkv.dtype), 1)
    p = xp.empty((b, h, t, t), qkv.dtype)
    z = xp.empty((b, t, h, c), qkv.dtype)
    for item, heads in _parts(b, t, h, qkv.dtype.itemsize):
        q, k, v = _heads_first(qkv.data, item, heads)
        s = p[item, heads]
        xp.matmul(q * scale, k.swapaxes(1, 2), out=s)
        s += future
        s -= s.max(axis=-1, keepdims=True)
        xp.exp(s, out=s)
        s /= s.sum(axis=-1, keepdims=True)
        xp.matmul(s, v, out=z[item, :, heads].swapaxes(0, 1))

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dqkv = xp.empty(qkv.shape, qkv.dtype)
        along = xp.einsum("bthc,bthc->bht", dz, z)[..., None]  # Σ dz·z, which is Σ dp·p
        for item, heads in _parts(b, t, h, qkv.dtype.itemsize):
            q, k, v = _heads_first(qkv.data, item, heads)
            dq, dk, dv = _heads_first(dqkv, item, heads)
            s, dzi = p[item, heads], dz[item, :, heads].swapaxes(0, 1)
            xp.matmul(s.swapaxes(1, 2), dzi, out=dv)
            ds = dzi @ v.swapaxes(1, 2)
            ds -= along[item, heads]
            ds *= s
            ds *= scale
            xp.matmul(ds, k, out=dq)
            xp.matmul(ds.swapaxes(1, 2), q, out=dk)
        return (dqkv,)

    return record(z, (qkv,), vjp)


def _parts(b: int, t: int, h: int, itemsize: int) -> Iterator[tuple[int, slice]]:
    """(batch item, heads) so that the scores of each part fit the cache."""
    for item in range(b):
        for heads in blocks(h, t * t * itemsize, SCORE_BYTES):
            yield item, heads


def _heads_first(qkv: Array, item: int, heads: slice) -> Array:
    """q, k and v of one part, each [h, t, c], as views."""
    return qkv[item, :, :, heads].transpose(1, 2, 0, 3)
