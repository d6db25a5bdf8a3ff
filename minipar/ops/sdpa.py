"""Attention of any queries to any keys, with heads in groups: scaled dot-product attention.

    z = softmax(q kᵀ / √c) v          for each head (Vaswani et al. 2017, section 3.2.1)

Letters: b batch items, t queries, s keys, c channels a head, h heads of queries in g groups of
r = h / g. The heads g·r .. g·r + r - 1 share the keys and values of group g (Ainslie et al. 2023):
g = h is the usual attention, g = 1 has one head of keys. The causal mask puts the queries at the
end of the keys, query n at position s - t + n: with a cache of old keys, t is 1.

`causal_attention` (attention.py) is the same for q, k and v packed together, s = t and g = h. Like
it, the fused op works on parts that fit the cache, with the scores lying [key, query]: all groups
of several batch items, or some groups of one. The r·t queries of a group are rows of one product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from minipar import cuda
from minipar.array import Array, array_module
from minipar.blocks import blocks, room
from minipar.errors import ShapeMismatch
from minipar.ops.normalize import softmax
from minipar.tensor import Tensor, record, shown

SCORE_BYTES = 1 << 19


def attention_definition(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """z = softmax(q kᵀ / √c) v for each head   (Vaswani et al. 2017, Ainslie et al. 2023)."""
    b, t, h, c = q.shape
    s, g = k.shape[1:3]
    q = q.reshape(b, t, g, h // g, c).transpose(0, 2, 3, 1, 4)  # [b, g, r, t, c]
    k = k.transpose(0, 2, 3, 1)[:, :, None]  # [b, g, 1, c, s]
    v = v.transpose(0, 2, 1, 3)[:, :, None]  # [b, g, 1, s, c]
    scores = q @ k * c**-0.5
    if causal:
        scores = scores + _later(q.data, t, s).T
    return (softmax(scores) @ v).transpose(0, 3, 1, 2, 4).reshape(b, t, h, c)


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """`attention_definition`, in parts.   q: [b, t, h, c]   k, v: [b, s, g, c]   z: [b, t, h, c].

    Keeps q, k, v, z and e [b, g, s, r·t] until backward; e = exp(scores - max), of all heads, is by
    far the largest for long sequences. Without gradients only one part of it exists at a time. The
    vjp is that of `causal_attention`.
    """
    _check(q, k, v, causal)
    if q.data.size and cuda.fast(q.data, k.data, v.data):
        mixed_all, back = cuda.scaled_dot_product_attention(q.data, k.data, v.data, causal)
        return record(mixed_all, (q, k, v), back)
    xp, itemsize = array_module(q.data), q.dtype.itemsize
    (b, t, h, c), (s, g) = q.shape, k.shape[1:3]
    r = h // g
    later = _later(q.data, t, s)[:, None] if causal else None
    kept = q.requires_grad or k.requires_grad or v.requires_grad
    e = xp.empty((b, g, s, r * t), q.dtype) if kept else None
    total = xp.empty((b, g, 1, r * t), q.dtype)
    z = xp.empty((b, t, h, c), q.dtype)
    for at in _parts(b, g, s * r * t * itemsize, room(q.data, SCORE_BYTES)):
        rows = _rows(q.data, g, at) * c**-0.5
        part = xp.empty((*rows.shape[:2], s, r * t), q.dtype) if e is None else e[at]
        xp.matmul(_group_first(k.data, at), rows.swapaxes(2, 3), out=part)
        if later is not None:
            masked = part.reshape(*rows.shape[:2], s, r, t)  # a view
            masked += later
        part -= part.max(axis=2, keepdims=True)
        xp.exp(part, out=part)
        part.sum(axis=2, keepdims=True, out=total[at])
        mixed = part.swapaxes(2, 3) @ _group_first(v.data, at)
        mixed /= total[at].swapaxes(2, 3)
        _write_rows(z, mixed, g, at)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return _gradients((q.data, k.data, v.data), (e, total, z), dz, wanted)

    return record(z, (q, k, v), vjp)


def _gradients(
    qkv: Sequence[Array], made: Sequence[Array], dz: Array, wanted: Sequence[bool]
) -> Sequence[Array | None]:
    """dq, dk, dv, part by part as in forward; `made` is e, total = Σ e, and z."""
    q, k, v = qkv
    e, total, z = made
    xp, (b, _, g, c) = array_module(dz), k.shape
    dq, dk, dv = (xp.empty(x.shape, x.dtype) if want else None for x, want in zip(qkv, wanted))
    for at in _parts(b, g, e[:1, :1].nbytes, room(q, SCORE_BYTES)):
        part = e[at]
        grad = _rows(dz, g, at)
        grad /= total[at].swapaxes(2, 3)
        if dv is not None:
            _group_first(dv, at)[...] = part @ grad
        if dq is None and dk is None:
            continue
        grad *= c**-0.5
        ds = _group_first(v, at) @ grad.swapaxes(2, 3)
        grad *= _rows(z, g, at)
        ds -= grad.sum(axis=3)[:, :, None]
        ds *= part
        if dq is not None:
            _write_rows(dq, ds.swapaxes(2, 3) @ _group_first(k, at), g, at)
        if dk is not None:
            _group_first(dk, at)[...] = ds @ _rows(q, g, at)
    return dq, dk, dv


def _parts(b: int, g: int, bytes_each: int, most: int) -> Iterator[tuple[slice, slice]]:
    """(batch items, groups) whose scores fit the cache: all groups of some, or some of one."""
    for items in blocks(b, g * bytes_each, most):
        for groups in blocks(g, bytes_each, most):
            yield items, groups


def _group_first(x: Array, at: tuple[slice, slice]) -> Array:
    """A part of [b, s, g, c] as [items, groups, s, c], a view."""
    return x[at[0], :, at[1]].swapaxes(1, 2)


def _rows(x: Array, g: int, at: tuple[slice, slice]) -> Array:
    """A part of [b, t, h, c] as [items, groups, r·t, c], copied: what meets the same keys."""
    part = _by_group(x, g, at).copy()
    i, n, r, t, c = part.shape
    return part.reshape(i, n, r * t, c)


def _write_rows(x: Array, rows: Array, g: int, at: tuple[slice, slice]) -> None:
    """The way back, into x [b, t, h, c], a contiguous array."""
    into = _by_group(x, g, at)
    into[...] = rows.reshape(into.shape)


def _by_group(x: Array, g: int, at: tuple[slice, slice]) -> Array:
    """A part of [b, t, h, c] as [items, groups, r, t, c]; a view if x is contiguous."""
    b, t, h, c = x.shape
    return x.reshape(b, t, g, h // g, c)[at[0], :, at[1]].transpose(0, 2, 3, 1, 4)


def _later(like: Array, t: int, s: int) -> Array:
    """[key, query]: -inf where the key comes after the query, else 0."""
    xp = array_module(like)
    return xp.tril(xp.full((s, t), -xp.inf, like.dtype), t - s - 1)


def _check(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> None:
    fits = q.ndim == k.ndim == 4 and k.shape == v.shape
    fits = fits and q.shape[0] == k.shape[0] and q.shape[3] == k.shape[3]
    if not fits or not k.shape[1] or not k.shape[2] or q.shape[2] % k.shape[2]:
        raise ShapeMismatch(
            f"scaled_dot_product_attention: q is {shown(q)}, k {shown(k)}, v "
            f"{shown(v)}: they must be [batch, position, head, channel], k and v alike, "
            "and the heads of k must divide those of q."
        )
    if causal and q.shape[1] > k.shape[1]:
        raise ShapeMismatch(
            f"scaled_dot_product_attention: {q.shape[1]} queries stand at the end of "
            f"{k.shape[1]} keys, so the first would see none. Is the cache missing in k and v?"
        )
