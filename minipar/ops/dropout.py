"""Dropout: some elements become zero, the others grow so that the mean stays."""

from __future__ import annotations

from minipar import cuda
from minipar.array import Array, beside, describe
from minipar.errors import ShapeMismatch, UsageError
from minipar.random import Draw, key, threshold
from minipar.tensor import Tensor, record, shown


def dropout(x: Tensor, keep: Array, p: float) -> Tensor:
    """z = x · keep / (1 - p).   keep: bool, of x's shape, False with probability p.   Keeps keep.

    Where the mask comes from: `random.Draw.keep`, a pure function of the global element index.
    """
    _check(p)
    if keep.shape != x.shape:
        raise ShapeMismatch(f"dropout: x is {shown(x)}, the mask {describe(keep)}.")
    keep = beside(keep, x.data)
    scale = x.dtype.type(1 / (1 - p))

    def masked(values: Array) -> Array:
        z = values * keep
        z *= scale
        return z

    return record(masked(x.data), (x,), lambda dz, wanted: (masked(dz),))


def drawn_dropout(x: Tensor, draw: Draw, name: str, p: float) -> Tensor:
    """z = dropout(x, draw.keep(name, x.shape, p), p).   x: [rows of the batch, ...].

    Keeps the mask; on a GPU only where it comes from, since it is drawn there, the same bits, in
    forward and once more in backward. Nothing is sent.
    """
    _check(p)
    if not cuda.fast(x.data):
        return dropout(x, draw.keep(name, x.shape, p), p)
    first, second = key(draw.seed, name)
    stream = (int(first), int(second), draw.step, draw.start(name, x.shape))
    z, back = cuda.dropout(x.data, stream, int(threshold(p)), p)
    return record(z, (x,), back)


def _check(p: float) -> None:
    if not 0 <= p < 1:
        raise UsageError(f"dropout: p is {p}; it is the share that is dropped, 0 <= p < 1.")
