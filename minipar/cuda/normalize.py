"""Layer norm and rms norm in one launch forward, two backward (normalize.cu).

Keeps x, and mean and 1/std of each row in float32. d may be at most LONGEST_ROW.
Letters: n rows, d numbers a row.
"""

from __future__ import annotations

from collections.abc import Sequence

from minipar.cuda.columns import add_up
from minipar.cuda.source import Array, Made, contiguous, launch, threads_of_row, width

BLOCKS, ROWS = 1584, 8  # at most so many blocks in backward, each with so many rows or more
LONGEST_ROW = 12288  # two sums for each column fit the shared memory of a block, 96 KB


def layer_norm(x: Array, gain: Array, bias: Array, eps: float) -> Made:
    """z and the vjp of `ops.layer_norm`."""
    z, mean_and_inverse = _forward("layer_norm", x, (gain, bias), eps)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        grads = _backward("layer_norm_back", dz, x, gain, mean_and_inverse)
        return [g if want else None for g, want in zip(grads, wanted)]

    return z, vjp


def rms_norm(x: Array, gain: Array, eps: float) -> Made:
    """z and the vjp of `ops.rms_norm`."""
    z, zero_and_inverse = _forward("rms_norm", x, (gain,), eps)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        grads = _backward("rms_norm_back", dz, x, gain, zero_and_inverse)
        return [g if want else None for g, want in zip(grads, wanted)]

    return z, vjp


def _forward(name: str, x: Array, given: tuple[Array, ...], eps: float) -> tuple[Array, Array]:
    import cupy

    d = x.shape[-1]
    x, *weights = (contiguous(a) for a in (x, *given))
    z, n = cupy.empty(x.shape, x.dtype), x.size // max(1, d)
    kept = cupy.empty((2, n), "float32")
    w = width(d, x, *weights)
    arguments = (x, *weights, z, kept, d, eps)
    launch(("normalize", name, x.dtype, w), (n,), threads_of_row(d, w), *arguments)
    return z, kept


def _backward(
    name: str, dz: Array, x: Array, gain: Array, kept: Array
) -> tuple[Array, Array, Array]:
    import cupy

    dz, x, gain = (contiguous(a) for a in (dz, x, gain))
    dx, (n, d) = cupy.empty(x.shape, x.dtype), (kept.shape[1], len(gain))
    w, blocks = width(d, x, dz, gain), min(-(-n // ROWS), BLOCKS)
    sums = cupy.empty((blocks, 2 * d), "float32")
    arguments = (dz, x, gain, kept, dx, sums, n, d)
    kernel = ("normalize", name, x.dtype, w)
    launch(kernel, (blocks,), threads_of_row(d, w), *arguments, shared_bytes=8 * d)
    dgain, dbias = add_up(sums, x.dtype).reshape(2, d)
    return dx, dgain, dbias
