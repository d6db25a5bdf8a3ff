"""What training makes small: how far the model is from the targets, as one number.

Letters: n positions, v classes, t a target, p what the model takes for probable.
Targets are data: no gradient goes to them, except in mse, which is symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minipar import cuda
from minipar.array import Array, array_module, beside, describe, extremes
from minipar.errors import ShapeMismatch, UsageError
from minipar.tensor import Tensor, plain, record, shown


def cross_entropy(
    logits: Tensor,
    targets: Tensor | Array,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """z = mean over all n positions of -log softmax(logits)[target].

    logits: [..., v]   targets: integers [...]   z: a single number.
    Keeps p = softmax(logits) until backward, where dlogits = (p - onehot(target)) · dz / n.
    ignore_index:    positions with this target do not count, neither in the sum nor in n.
    label_smoothing: ε of the target's weight goes to all v classes, in equal shares (Szegedy et al.
                     2016, section 7): for onehot(target) read (1 - ε) · onehot(target) + ε / v.
    Raises: ShapeMismatch, also if a target is not a class, or if all positions are ignored.
    """
    index = plain(targets)
    if ignore_index is not None or label_smoothing:
        return _smoothed_cross_entropy(logits, index, ignore_index, label_smoothing)
    v = logits.shape[-1] if logits.ndim else 0
    _check(logits, index, v)
    xp = array_module(logits.data)
    index = beside(index, logits.data).reshape(-1)
    if cuda.fast(logits.data):
        z, back = cuda.cross_entropy(logits.data, index.astype("int64", copy=False), 1 / index.size)
        return record(z, (logits,), back)
    n, position = index.size, xp.arange(index.size)
    p = logits.data.reshape(n, v)
    p = p - p.max(axis=-1, keepdims=True)
    at_target = p[position, index]
    xp.exp(p, out=p)
    total = p.sum(axis=-1)
    p /= total[:, None]
    loss = (xp.log(total) - at_target).mean()
    shape = logits.shape

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        scale = dz / n
        dlogits = p * scale
        dlogits[position, index] -= scale
        return (dlogits.reshape(shape),)

    return record(xp.asarray(loss), (logits,), vjp)


def _smoothed_cross_entropy(
    logits: Tensor, index: Array, ignore_index: int | None, epsilon: float
) -> Tensor:
    """`cross_entropy` with its options: a row's share of the mean is 1 / n, or 0 if ignored."""
    if not 0 <= epsilon < 1:
        raise UsageError(f"cross_entropy: label_smoothing is {epsilon}; it must be in 0 <= ε < 1.")
    xp, there = array_module(logits.data), array_module(index)
    counted = there.ones(index.shape, bool) if ignore_index is None else index != ignore_index
    index = there.where(counted, index, 0)
    shape, v = logits.shape, logits.shape[-1] if logits.ndim else 0
    _check(logits, index, v)
    n, position = int(counted.sum()), xp.arange(index.size)
    if not n:
        raise ShapeMismatch(
            f"cross_entropy: all {index.size} targets are ignore_index={ignore_index}, so there is "
            "no mean. Skip such batches."
        )
    if cuda.fast(logits.data):
        marked = beside(there.where(counted, index, -1), logits.data).astype("int64", copy=False)
        z, back = cuda.cross_entropy(logits.data, marked.reshape(-1), 1 / n, epsilon)
        return record(z, (logits,), back)
    index = beside(index, logits.data).reshape(-1)
    share = beside(counted, logits.data).reshape(-1).astype(logits.dtype) / n
    p = logits.data.reshape(-1, v)
    p = p - p.max(axis=-1, keepdims=True)
    expected = (1 - epsilon) * p[position, index] + epsilon * p.mean(axis=-1)
    xp.exp(p, out=p)
    total = p.sum(axis=-1)
    p /= total[:, None]
    loss = ((xp.log(total) - expected) * share).sum()

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        scale = dz * share
        dlogits = p - epsilon / v
        dlogits *= scale[:, None]
        dlogits[position, index] -= (1 - epsilon) * scale
        return (dlogits.reshape(shape),)

    return record(xp.asarray(loss), (logits,), vjp)


def nll(log_p: Tensor, targets: Tensor | Array) -> Tensor:
    """z = mean over all n positions of -log_p[target].   Keeps the targets until backward.

    log_p: [..., v]   targets: integers [...]   z: a single number, the negative log likelihood.
    `nll(log_softmax(x), targets)` is the definition of `cross_entropy(x, targets)`.
    """
    index = plain(targets)
    shape, v = log_p.shape, log_p.shape[-1] if log_p.ndim else 0
    _check(log_p, index, v, "nll")
    xp, index = array_module(log_p.data), beside(index, log_p.data).reshape(-1)
    n, position = index.size, xp.arange(index.size)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dlog_p = xp.zeros((n, v), dz.dtype)
        dlog_p[position, index] = -dz / n
        return (dlog_p.reshape(shape),)

    return record(xp.asarray(-log_p.data.reshape(n, v)[position, index].mean()), (log_p,), vjp)


def mse(x: Tensor, y: Tensor | Array) -> Tensor:
    """z = mean of (x - y)², the mean squared error.   Keeps x - y until backward.

    x, y: of one shape; they do not broadcast, since [n] against [n, 1] is nearly always a mistake.
    """
    y = _beside(y, x)
    _check_alike("mse", x, y)
    xp = array_module(x.data)
    d = x.data - y.data

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = d * (dz * (2 / d.size))
        return dx if wanted[0] else None, -dx if wanted[1] else None

    return record(xp.asarray((d * d).mean()), (x, y), vjp)


def binary_cross_entropy_with_logits(logits: Tensor, targets: Tensor | Array) -> Tensor:
    """z = mean of -t · ln p - (1 - t) · ln(1 - p), p = sigmoid(logits).

    Also called logistic loss, or sigmoid cross-entropy; a logit x is ln(p / (1 - p)).
    logits, targets: of one shape, the targets in 0 .. 1. Keeps p - t until backward, where
    dlogits = (p - t) · dz / n. Computed as max(x, 0) - x·t + ln(1 + e^-|x|), finite for every x.
    """
    t = _beside(targets, logits)
    _check_alike("binary_cross_entropy_with_logits", logits, t)
    if t.requires_grad:
        raise UsageError(
            "binary_cross_entropy_with_logits: targets get no gradient; detach() them."
        )
    x, xp = logits.data, array_module(logits.data)
    e = xp.exp(-xp.abs(x))
    loss = xp.maximum(x, 0) - x * t.data + xp.log1p(e)
    slope = xp.where(x >= 0, xp.ones((), x.dtype), e) / (1 + e) - t.data  # p - t

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (slope * (dz / slope.size),)

    return record(xp.asarray(loss.mean()), (logits,), vjp)


def _beside(targets: Any, x: Tensor) -> Tensor:
    """Targets that are plain numbers as a tensor, where x lies."""
    if isinstance(targets, Tensor):
        return targets
    return Tensor(beside(Tensor(targets).data, x.data))


def _check_alike(op: str, x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape or not x.data.size:
        raise ShapeMismatch(
            f"{op}: {shown(x)} and {shown(y)}: the shapes must be equal, and not "
            "empty. Is a [n, 1] to be reshaped to [n]?"
        )


def _check(logits: Tensor, index: Array, v: int, op: str = "cross_entropy") -> None:
    if index.dtype.kind not in "iu" or logits.shape[:-1] != index.shape or not index.size:
        raise ShapeMismatch(
            f"{op}: logits are {shown(logits)}, targets {describe(index)}: the "
            "targets must be integers, one for each row of logits."
        )
    low, high = extremes(index)
    if low < 0 or high >= v:
        raise ShapeMismatch(
            f"{op}: there are {v} classes, but a target is {low if low < 0 else high}. "
            f"Targets run from 0 to {v - 1}; is the vocabulary of the model that of the data?"
        )
