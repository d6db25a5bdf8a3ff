r"""Cross-entropy of logits whose classes are shared out among the ranks; nobody has all of a row.

    logits     [ rank 0: classes 0..k | rank 1: k..2k | rank 2: 2k..v, padding ]     of one position

    max        of the own classes, then of all ranks          all-reduce max of [n]
    Σ exp      of the own classes, then of all ranks  ┐
    target     its logit, if it is an own class,      ├       all-reduce sum of [2 or 3, n]
               0 elsewhere; the sum is the logit      ┘

Sent are two or three numbers for each position, where gathering the logits would send v. All ranks
get the same loss. Backward sends nothing: each rank has p = exp(logit - max) / Σ of its classes.

Letters: n positions, v classes in all, k classes of a rank, p their probabilities, ε the smoothing.
Paper: Shoeybi et al. 2019, section 3 ("fuse the output of the parallel GEMM with the cross entropy
loss").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from minipar.array import Array, array_module, beside, describe, extremes
from minipar.comm.group import Group
from minipar.errors import ShapeMismatch, UsageError
from minipar.ops.half import in_float32
from minipar.tensor import Tensor, plain, record, shown


@partial(in_float32, rounded=False)
def vocab_parallel_cross_entropy(
    logits: Tensor,
    targets: Tensor | Array,
    group: Group,
    vocab: int,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """`cross_entropy(all logits, targets)`, the same number on every rank.

    logits:  [..., k], of classes r·k .. (r+1)·k; those from vocab on are padding, and do not count.
    targets: integers [...], the same on every rank.
    Keeps p of its own classes. Cost: all_reduces of n and of 2n numbers (3n with smoothing).
    Raises: as `cross_entropy`.
    """
    index = plain(targets)
    counted = _counted(index, ignore_index)
    _check(logits, index, counted, group, vocab, label_smoothing)
    xp, shape, k = array_module(logits.data), logits.shape, logits.shape[-1]
    first = group.rank * k
    real = min(max(vocab - first, 0), k)  # the others are padding
    here = _targets_here(index.reshape(-1), counted.reshape(-1), range(first, first + real))
    rows, at = (beside(a, logits.data) for a in here)
    share = beside(_share(counted.reshape(-1)).astype(logits.dtype), logits.data)

    e = logits.data.reshape(-1, k)[:, :real]
    e = e - _largest(e, group)[:, None]
    told = xp.zeros((3 if label_smoothing else 2, len(e)), logits.dtype)
    told[1, rows] = e[rows, at]
    if label_smoothing:
        told[2] = e.sum(axis=1)
    xp.exp(e, out=e)
    told[0] = e.sum(axis=1)
    group.all_reduce(told, out=told)
    expected = told[1]
    if label_smoothing:
        expected = (1 - label_smoothing) * told[1] + label_smoothing / vocab * told[2]
    loss = ((xp.log(told[0]) - expected) * share).sum()
    e /= told[0][:, None]

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        scale = dz * share
        dlogits = xp.zeros((len(e), k), logits.dtype)
        own = dlogits[:, :real]
        xp.multiply(e - label_smoothing / vocab if label_smoothing else e, scale[:, None], out=own)
        own[rows, at] -= (1 - label_smoothing) * scale[rows]
        return (dlogits.reshape(shape),)

    return record(xp.asarray(loss), (logits,), vjp)


def _largest(logits: Array, group: Group) -> Array:
    """The largest logit of each row, over the classes of all ranks; a rank may have none."""
    xp = array_module(logits)
    own = xp.full(len(logits), -xp.inf, logits.dtype)
    if logits.shape[1]:
        own = logits.max(axis=1)
    return group.all_reduce(own, op="max")


def _targets_here(index: Array, counted: Array, classes: range) -> tuple[Array, Array]:
    """The rows whose target is one of these classes, and which of them.

    How many they are must be known; so targets are best left in host memory, where nobody waits.
    """
    xp = array_module(index)
    rows = xp.flatnonzero(counted & (index >= classes.start) & (index < classes.stop))
    return rows, index[rows] - classes.start


def _share(counted: Array) -> Array:
    """Of each row in the mean; 0 of one that does not count."""
    return counted / int(counted.sum())


def _counted(index: Array, ignore_index: int | None) -> Array:
    """Which positions count."""
    if ignore_index is None:
        return array_module(index).ones(index.shape, bool)
    return index != ignore_index


def _check(
    logits: Tensor, index: Array, counted: Array, group: Group, vocab: int, smoothing: float
) -> None:
    op, v = "vocab_parallel_cross_entropy", vocab
    if not 0 <= smoothing < 1:
        raise UsageError(f"{op}: label_smoothing is {smoothing}; it must be in 0 <= ε < 1.")
    if index.dtype.kind not in "iu" or logits.shape[:-1] != index.shape or not index.size:
        raise ShapeMismatch(
            f"{op}: logits are {shown(logits)}, targets {describe(index)}: the targets must be "
            "integers, one for each row of logits."
        )
    if logits.shape[-1] * group.size < v:
        raise ShapeMismatch(
            f"{op}: {group.size} ranks with logits {shown(logits)} have fewer than {v} classes. Is "
            "vocab that of the layer which made them?"
        )
    if not counted.any():
        raise ShapeMismatch(
            f"{op}: all {index.size} targets are the ignore_index, so there is no mean. Skip such "
            "batches."
        )
    low, high = extremes(index[counted])
    if low < 0 or high >= v:
        raise ShapeMismatch(
            f"{op}: there are {v} classes, but a target is {low if low < 0 else high}. Targets run "
            f"from 0 to {v - 1}; is the vocabulary of the model that of the data?"
        )
