"""Causal self-attention of all heads, from the packed q, k, v to the mixed values.

    s = q kᵀ / √c        each position looks back, at itself and what was before
    e = exp(s - max s)
    z = e v / Σ e        max and Σ over the keys that a query sees

Letters: b batch items, t positions, h heads, c channels a head. `qkv` is [b, t, 3, h, c], as one
matrix product for q, k and v leaves it. The products run on strided views of it, one batch item
(and as many heads as fit the cache) at a time, so each block of scores is made and used while it is
in the cache. It lies [key, query], because NumPy takes the maximum and the sum down the columns
several times faster than along the rows, and it is never divided by its sum: the much smaller z is.
Left out on purpose: dropout of the weights, and recomputing e in backward (FlashAttention), which
would save its b·h·t·t numbers.
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

    Keeps qkv, z and e [b, h, key, query] until backward. With g = dz / (Σ e) and p = e / Σ e:
    dp = dz vᵀ,   ds = p · (dp - Σ dz·z) / √c = e · (g vᵀ - Σ g·z) / √c,
    dq = ds k,   dk = dsᵀ q,   dv = pᵀ dz = eᵀ g.
    """
    if qkv.ndim != 5 or qkv.shape[2] != 3:
        raise ShapeMismatch(
            f"causal_attention: qkv is {describe(qkv.data)}; it must be [batch, position, 3, head, "
            "channel], where 3 stands for q, k and v."
        )
    xp = array_module(qkv.data)
    b, t, _, h, c = qkv.shape
    scale = c**-0.5
    future = xp.tril(xp.full((t, t), -xp.inf, qkv.dtype), -1)  # keys after the query
    e = xp.empty((b, h, t, t), qkv.dtype)
    total = xp.empty((b, h, 1, t), qkv.dtype)
    z = xp.empty((b, t, h, c), qkv.dtype)
    for item, heads in _parts(b, t, h, qkv.dtype.itemsize):
        q, k, v = _heads_first(qkv.data, item, heads)
        s, mixed = e[item, heads], z[item, :, heads].swapaxes(0, 1)
        xp.matmul(k, (q * scale).swapaxes(1, 2).copy(), out=s)  # a small copy; BLAS likes it
        s += future
        s -= s.max(axis=1, keepdims=True)
        xp.exp(s, out=s)
        s.sum(axis=1, keepdims=True, out=total[item, heads])
        xp.matmul(s.swapaxes(1, 2), v, out=mixed)
        mixed /= total[item, heads].swapaxes(1, 2)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (_gradient(qkv.data, e, total, z, dz),)

    return record(z, (qkv,), vjp)


def _gradient(qkv: Array, e: Array, total: Array, z: Array, dz: Array) -> Array:
    """dqkv, part by part as in forward; total is Σ e [b, h, 1, query]."""
    xp = array_module(qkv)
    b, t, _, h, c = qkv.shape
    dqkv = xp.empty(qkv.shape, qkv.dtype)
    for item, heads in _parts(b, t, h, qkv.dtype.itemsize):
        q, k, v = _heads_first(qkv, item, heads)
        dq, dk, dv = _heads_first(dqkv, item, heads)
        g = dz[item, :, heads].swapaxes(0, 1) / total[item, heads].swapaxes(1, 2)
        xp.matmul(e[item, heads], g, out=dv)
        g *= c**-0.5
        along = xp.einsum("htc,htc->ht", g, z[item, :, heads].swapaxes(0, 1))
        ds = v @ g.swapaxes(1, 2).copy()
        ds -= along[:, None]
        ds *= e[item, heads]
        xp.matmul(ds.swapaxes(1, 2), k, out=dq)
        xp.matmul(ds, q, out=dk)
    return dqkv


def _parts(b: int, t: int, h: int, itemsize: int) -> Iterator[tuple[int, slice]]:
    """(batch item, heads) so that the scores of each part fit the cache."""
    for item in range(b):
        for heads in blocks(h, t * t * itemsize, SCORE_BYTES):
            yield item, heads


def _heads_first(qkv: Array, item: int, heads: slice) -> Array:
    """q, k and v of one part, each [h, t, c], as views."""
    return qkv[item, :, :, heads].transpose(1, 2, 0, 3)
