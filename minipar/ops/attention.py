"""Causal self-attention of all heads, from the packed q, k, v to the mixed values.

    s = q kᵀ / √c        each position looks back, at itself and what was before
    e = exp(s - max s)
    z = e v / Σ e        max and Σ over the keys that a query sees

          keys  0..64   64..128                 Scores are made and used in tiles that stay in the
    queries
     0..64   [ tile 1 ]   skipped                cache: one batch item, a few heads, 64 queries, and
    64..128  [       tile 2      ]               only the keys that one of these queries may see.

Letters: b batch items, t positions, h heads, c channels a head. `qkv` is [b, t, 3, h, c], as one
matrix product for q, k and v leaves it; all products run on strided views of it. A tile lies
[key, head, query], because NumPy takes the maximum and the sum down long columns several times
faster than along the rows, and it is never divided by its sum: the much smaller z is.
Left out on purpose: dropout of the weights, and recomputing e in backward (FlashAttention), which
would save its b·h·t·t/2 numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from minipar import cuda
from minipar.array import Array, array_module
from minipar.blocks import blocks
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, record, shown

QUERIES = 64  # of a tile; fewer would skip more of the future, but NumPy likes long rows
SCORE_BYTES = 1 << 19  # of a tile, at most


def causal_attention(qkv: Tensor) -> Tensor:
    """z = softmax(q kᵀ / √c, over earlier positions) v.   qkv: [b, t, 3, h, c]   z: [b, t, h, c].

    Keeps qkv, z and e (of each tile, [key, head, query]) until backward. With two rows of tiles the
    future that is skipped is a quarter of the work, with many nearly half. With g = dz / Σ e and
    p = e / Σ e:   dp = dz vᵀ,   ds = p · (dp - Σ dz·z) / √c = e · (g vᵀ - Σ g·z) / √c,
    dq = ds k,   dk = dsᵀ q,   dv = pᵀ dz = eᵀ g.
    """
    if qkv.ndim != 5 or qkv.shape[2] != 3:
        raise ShapeMismatch(
            f"causal_attention: qkv is {shown(qkv)}; it must be [batch, position, 3, head, "
            "channel], where 3 stands for q, k and v."
        )
    if qkv.data.size and cuda.fast(qkv.data):
        mixed, back = cuda.causal_attention(qkv.data)
        return record(mixed, (qkv,), back)
    xp = array_module(qkv.data)
    b, t, _, h, c = qkv.shape
    later = xp.tril(xp.full((t, t), -xp.inf, qkv.dtype), -1)[:, None]  # keys after the query
    total = xp.empty((b, t, h, 1), qkv.dtype)
    z = xp.empty((b, t, h, c), qkv.dtype)
    kept = []  # per part, the e of its tiles
    for item, heads in _parts(b, t, h, qkv.dtype.itemsize):
        part = _heads_first(qkv.data, item, heads)
        tiles = _mix(part, later, total[item, :, heads], z[item, :, heads])
        if qkv.requires_grad:
            kept.append(tiles)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (_gradient(qkv.data, kept, total, z, dz),)

    return record(z, (qkv,), vjp)


def _mix(qkv: Sequence[Array], later: Array, total: Array, z: Array) -> list[Array]:
    """One part: fills total [t, h, 1] and z [t, h, c], returns the e of each tile."""
    xp, (q, k, v) = array_module(z), qkv
    scaled = (q * q.shape[2] ** -0.5).swapaxes(1, 2).copy()  # [h, c, t]; BLAS likes it so
    tiles = []
    for now, seen in _tiles(len(z)):
        e = xp.empty((seen.stop, len(q), now.stop - now.start), z.dtype)
        xp.matmul(k[:, seen], scaled[:, :, now], out=e.swapaxes(0, 1))
        e[now] += later[now, :, now]
        e -= e.max(axis=0)
        xp.exp(e, out=e)
        total[now, :, 0] = e.sum(axis=0).T
        xp.matmul(e.transpose(1, 2, 0), v[:, seen], out=z[now].swapaxes(0, 1))
        tiles.append(e)
    z /= total
    return tiles


def _gradient(qkv: Array, kept: list[list[Array]], total: Array, z: Array, dz: Array) -> Array:
    """dqkv, part by part as in forward; total is Σ e [b, query, h, 1]."""
    xp = array_module(qkv)
    b, t, _, h, c = qkv.shape
    dqkv = xp.empty(qkv.shape, qkv.dtype)
    for (item, heads), tiles in zip(_parts(b, t, h, qkv.dtype.itemsize), kept):
        g = dz[item, :, heads] / total[item, :, heads]
        along = xp.einsum("thc,thc->ht", g, z[item, :, heads]) * c**-0.5
        into = _heads_first(dqkv, item, heads)
        _gradient_of_part(_heads_first(qkv, item, heads), tiles, g.swapaxes(0, 1), along, into)
    return dqkv


def _gradient_of_part(
    qkv: Sequence[Array], tiles: list[Array], g: Array, along: Array, into: Sequence[Array]
) -> None:
    """Write dq, dk, dv [h, t, c].   g: [h, t, c]   along: Σ g·z / √c [h, t]."""
    xp, (q, k, v), (dq, dk, dv) = array_module(g), qkv, into
    scaled = (g * g.shape[2] ** -0.5).swapaxes(1, 2).copy()
    for (now, seen), e in reversed(list(zip(_tiles(g.shape[1]), tiles))):
        ds = xp.empty(e.shape, e.dtype)
        xp.matmul(v[:, seen], scaled[:, :, now], out=ds.swapaxes(0, 1))
        ds -= along[:, now].copy()  # a contiguous row makes the pass a long one
        ds *= e
        xp.matmul(ds.transpose(1, 2, 0), k[:, seen], out=dq[:, now])
        if seen.stop == g.shape[1]:  # the last tile comes first, and sees all keys
            xp.matmul(e.swapaxes(0, 1), g[:, now], out=dv)
            xp.matmul(ds.swapaxes(0, 1), q[:, now], out=dk)
        else:
            dv[:, seen] += e.swapaxes(0, 1) @ g[:, now]
            dk[:, seen] += ds.swapaxes(0, 1) @ q[:, now]


def _parts(b: int, t: int, h: int, itemsize: int) -> Iterator[tuple[int, slice]]:
    """(batch item, heads) so that each tile fits the cache."""
    for item in range(b):
        for heads in blocks(h, t * min(t, QUERIES) * itemsize, SCORE_BYTES):
            yield item, heads


def _tiles(t: int) -> Iterator[tuple[slice, slice]]:
    """(queries, the keys that some of them may see), in the order of time."""
    for now in blocks(t, 1, QUERIES):
        yield now, slice(now.stop)


def _heads_first(qkv: Array, item: int, heads: slice) -> Array:
    """q, k and v of one part, each [h, t, c], as views."""
    return qkv[item, :, :, heads].transpose(1, 2, 0, 3)
