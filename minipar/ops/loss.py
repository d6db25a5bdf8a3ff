"""Cross-entropy: how surprised the model is by what came next.

Letters: n positions, v classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from minipar.array import Array, array_module, describe
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, record


def cross_entropy(logits: Tensor, targets: Tensor | Array) -> Tensor:
    """z = mean over all n positions of -log softmax(logits)[target].

    logits: [..., v]   targets: integers [...]   z: a single number.
    Keeps p = softmax(logits) until backward, where dlogits = (p - onehot(target)) · dz / n.
    """
    index = targets.data if isinstance(targets, Tensor) else targets
    v = logits.shape[-1] if logits.ndim else 0
    _check(logits, index, v)
    xp = array_module(logits.data)
    index = index.reshape(-1)
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


def _check(logits: Tensor, index: Array, v: int) -> None:
    if index.dtype.kind not in "iu" or logits.shape[:-1] != index.shape or not index.size:
        raise ShapeMismatch(
            f"cross_entropy: logits are {describe(logits.data)}, targets {describe(index)}: the "
            "targets must be integers, one for each row of logits."
        )
    low, high = index.min(), index.max()
    if low < 0 or high >= v:
        raise ShapeMismatch(
            f"cross_entropy: there are {v} classes, but a target is {low if low < 0 else high}. "
            f"Targets run from 0 to {v - 1}; is the vocabulary of the model that of the data?"
        )
