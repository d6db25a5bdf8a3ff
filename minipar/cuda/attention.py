"""Attention in blocks of queries: batched cuBLAS products, and a softmax between (attention.cu).

    for some heads, for QUERIES queries of each:
        scores  = q kᵀ / √c             [heads, queries, keys that some of them see], float32
        weights = softmax(scores)       in the dtype of q
        z       = weights v

What exists at once are the scores of one such block. Kept until backward are q, k, v and, for each
query, log Σ e^score: with it backward makes the weights again, block by block (Dao et al. 2022,
section 3.1, whose kernel also keeps the scores out of the GPU's main memory; this one does not).

Letters: m heads, n queries of each, s keys, c channels.   q: [m, n, c]   k, v: [m, s, c].
Where heads share keys, their queries are one list: n is a multiple of t, the positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from minipar.cuda import flash
from minipar.cuda.products import matmul
from minipar.cuda.source import Array, Made, contiguous, launch, width

QUERIES = 128  # more would compute more of the future, fewer make the products small
SCORE_BYTES = 1 << 27  # of a block of float32 scores
HEADS = 65535  # in a launch
WARPS = 4  # of a block of threads


class Block(NamedTuple):
    """Some queries of some heads, and how many keys they see."""

    heads: slice
    queries: slice
    keys: int


def causal_attention(qkv: Array) -> Made:
    """z and the vjp of `ops.causal_attention`.   qkv: [b, t, 3, h, c]   z: [b, t, h, c].

    Keeps q, k and v with the heads first, and log Σ e^score of each query.
    """
    import cupy

    if flash.suits(qkv):
        return flash.causal_attention(qkv)
    b, t, _, h, c = qkv.shape
    heads = qkv.transpose(2, 0, 3, 1, 4).copy().reshape(3, b * h, t, c)
    z, log_sums = attention(heads[0], heads[1], heads[2], t, causal=True)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dz = dz.swapaxes(1, 2).copy().reshape(b * h, t, c)
        dqkv = cupy.empty((b, t, 3, h, c), dz.dtype)
        for n, g in enumerate(attention_back(dz, heads, log_sums, t, causal=True)):
            dqkv[:, :, n] = g.reshape(b, h, t, c).swapaxes(1, 2)
        return (dqkv,)

    return z.reshape(b, h, t, c).swapaxes(1, 2).copy(), vjp


def scaled_dot_product_attention(q: Array, k: Array, v: Array, causal: bool) -> Made:
    """z and the vjp of `ops.scaled_dot_product_attention`.   q: [b, t, h, c]   k, v: [b, s, g, c].

    Keeps the same, of q, k and v.
    """

    (b, t, h, c), (s, g) = q.shape, k.shape[1:3]
    heads_first = q.swapaxes(1, 2).copy().reshape(b * g, -1, c)
    keys, values = (a.swapaxes(1, 2).copy().reshape(b * g, s, c) for a in (k, v))
    z, log_sums = attention(heads_first, keys, values, t, causal)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dz = dz.swapaxes(1, 2).copy().reshape(heads_first.shape)
        made = attention_back(dz, (heads_first, keys, values), log_sums, t, causal)
        dq, dk, dv = (a.reshape(b, -1, n, c).swapaxes(1, 2) for a, n in zip(made, (t, s, s)))
        dk, dv = (a.astype(dz.dtype, order="C") for a in (dk, dv))
        return [a if want else None for a, want in zip((dq.copy(), dk, dv), wanted)]

    return contiguous(z.reshape(b, h, t, c).swapaxes(1, 2)), vjp


def attention(q: Array, k: Array, v: Array, t: int, causal: bool) -> tuple[Array, Array]:
    """z [m, n, c], and log Σ e^score of each query, float32 [m, n]."""
    import cupy

    (m, n), s = q.shape[:2], k.shape[1]
    z, log_sums = cupy.empty(q.shape, q.dtype), cupy.empty((m, n), "float32")
    for block in _blocks(m, n, s, t, causal):
        heads, rows, keys = block
        scores = _scores(q, k, block)
        weights = cupy.empty(scores.shape, q.dtype)
        _rows("softmax", block, (scores, weights, log_sums[heads]), (n, s, t, causal))
        matmul(weights, v[heads, :keys], out=z[heads, rows])
    return z, log_sums


def attention_back(
    dz: Array, qkv: tuple[Array, Array, Array], log_sums: Array, t: int, causal: bool
) -> tuple[Array, Array, Array]:
    """dq [m, n, c], dk and dv [m, s, c], these in float32: they are added up over the blocks."""
    import cupy

    q, k, v = qkv
    (m, n, c), s = q.shape, k.shape[1]
    dq, (dk, dv) = cupy.empty(q.shape, q.dtype), cupy.empty((2, *k.shape), "float32")
    for block in _blocks(m, n, s, t, causal):
        heads, rows, keys = block
        scores = _scores(q, k, block)
        dp = cupy.empty(scores.shape, "float32")
        matmul(dz[heads, rows], v[heads, :keys].swapaxes(1, 2), out=dp)
        p, ds = cupy.empty((2, *scores.shape), q.dtype)
        _rows("softmax_back", block, (scores, dp, log_sums[heads], p, ds), (n, s, t, causal))
        more = rows.stop < n  # the first block sees all keys
        matmul(ds, k[heads, :keys], out=dq[heads, rows], scale=c**-0.5)
        matmul(ds.swapaxes(1, 2), q[heads, rows], dk[heads, :keys], c**-0.5, more)
        matmul(p.swapaxes(1, 2), dz[heads, rows], dv[heads, :keys], 1.0, more)
    return dq, dk, dv


def _blocks(m: int, n: int, s: int, t: int, causal: bool) -> Iterator[Block]:
    """From the last queries of some heads to the first, then the next heads."""
    most = max(1, min(HEADS, SCORE_BYTES // (4 * s * QUERIES)))
    for head in range(0, m, most):
        for row in reversed(range(0, n, QUERIES)):
            queries = slice(row, min(row + QUERIES, n))
            keys = s - t + queries.stop if causal and n == t else s
            yield Block(slice(head, min(head + most, m)), queries, keys)


def _scores(q: Array, k: Array, block: Block) -> Array:
    import cupy

    heads, rows, keys = block
    some = q[heads, rows]
    scores = cupy.empty((*some.shape[:2], keys), "float32")
    return matmul(some, k[heads, :keys].swapaxes(1, 2), out=scores, scale=q.shape[2] ** -0.5)


def _rows(
    name: str, block: Block, arrays: tuple[Array, ...], of: tuple[int, int, int, bool]
) -> None:
    """A kernel with a warp to each row of scores."""
    (m, rows, keys), (n, s, t, causal) = arrays[0].shape, of
    low = arrays[1] if name == "softmax" else arrays[-1]
    kernel = ("attention", name, low.dtype, width(keys, low))
    numbers = (block.queries.start, t, s - t if causal else -1, rows, keys, n)
    launch(kernel, (-(-rows // WARPS), m), (32, WARPS), *arrays, *numbers)
