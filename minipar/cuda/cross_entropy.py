"""Softmax cross-entropy in one pass forward and one backward (cross_entropy.cu).

Letters: n rows of v logits, [..., v]; targets int64 [n], -1 where a row does not count; share is
1 / (how many count), ε the label smoothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minipar.cuda.source import Array, Made, contiguous, launch, threads_of_row, width


def cross_entropy(x: Array, targets: Array, share: float, epsilon: float = 0.0) -> Made:
    """z and the vjp of `ops.cross_entropy`; z is float32 whatever x is.

    Keeps x, which the layer before made and nobody else needs, and log Σ e^x of each row.
    """
    import cupy

    x, numbers = contiguous(x), (x.shape[-1], float(share), float(epsilon))
    losses, log_sums = cupy.empty((2, len(targets)), "float32")
    _rows("cross_entropy", x, (x, targets, losses, log_sums, *numbers))

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = cupy.empty(x.shape, x.dtype)
        _rows("cross_entropy_back", x, (x, targets, log_sums, dz, dx, *numbers))
        return (dx,)

    return losses.sum(), vjp


def _rows(name: str, x: Array, arguments: tuple[Any, ...]) -> None:
    v = x.shape[-1]
    w = width(v, x)
    kernel = ("cross_entropy", name, x.dtype, w)
    launch(kernel, (x.size // v,), threads_of_row(v, w, most=512), *arguments)
