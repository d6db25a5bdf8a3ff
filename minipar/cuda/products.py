"""Matrix products by cuBLAS: one call for two dimensions, one for a batch.

CuPy's own `@` copies transposed operands of a batch, computes a batch of float16 in float32 and has
none of bfloat16. Here an operand may lie transposed, and rows may be longer than they are used, at
no cost: cuBLAS takes a stride. All products are summed up in float32.

    row-major  z = a b        lies in memory as        column-major  zᵀ = bᵀ aᵀ

cuBLAS counts columns first, so it is asked for the right-hand side.
float32 is multiplied as float32, or as TF32 (8 + 10 bits instead of 8 + 23, on tensor cores) if
CuPy does so, which CUPY_TF32=1 in the environment makes it do.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

Array = Any
CODES = ("float32", "CUDA_R_32F", "float16", "CUDA_R_16F", "bfloat16", "CUDA_R_16BF")
SINGLE, TF32 = 1, 7  # as CuPy numbers them


def matmul(
    a: Array, b: Array, out: Array | None = None, scale: float = 1.0, add: bool = False
) -> Array:
    """z = scale · a @ b, plus what `out` held if `add`.   a: [..., n, i]   b: [..., i, o].

    The leading axes broadcast, which copies.
    out: [..., n, o], of the same dtype or float32, its rows contiguous.
    """
    import cupy

    batch, (n, i), o = a.shape[:-2], a.shape[-2:], b.shape[-1]
    if batch != b.shape[:-2]:
        batch = np.broadcast_shapes(batch, b.shape[:-2])
        a, b = cupy.broadcast_to(a, (*batch, n, i)), cupy.broadcast_to(b, (*batch, i, o))
    if out is None:
        out = cupy.empty((*batch, n, o), a.dtype)
    if not out.size or not i:
        if not add:
            out.fill(0)
        return out
    count = math.prod(batch)
    left, right = _operand(a.reshape(count, n, i)), _operand(b.reshape(count, i, o))
    _call(count, (n, i, o), left, right, out.reshape(count, n, o), (scale, float(add)))
    return out


def use_tf32(on: bool) -> None:
    """From now on, multiply float32 as TF32, here and in CuPy's own `@`; or no longer."""
    from cupy._core import set_compute_type

    set_compute_type("float32", TF32 if on else SINGLE)


def _operand(x: Array) -> tuple[Array, int, int, int]:
    """What cuBLAS can read: an array, 1 if it lies transposed, the strides of lines and batch."""
    (count, r, c), size = x.shape, x.itemsize
    batch, down, across = (s // size for s in x.strides)
    batch = batch if count > 1 else 0
    if (across == 1 or c == 1) and (down >= c or r == 1):
        return x, 0, down if r > 1 else c, batch
    if (down == 1 or r == 1) and (across >= r or c == 1):
        return x, 1, across if c > 1 else r, batch
    x = x.copy()
    return x, 0, c, r * c


def _call(
    count: int,
    shape: tuple[int, int, int],
    left: tuple[Array, int, int, int],
    right: tuple[Array, int, int, int],
    out: Array,
    factors: tuple[float, float],
) -> None:
    from cupy.cuda.device import get_cublas_handle
    from cupy_backends.cuda.libs import cublas

    (n, i, o), (a, turn_a, line_a, step_a), (b, turn_b, line_b, step_b) = shape, left, right
    alpha, beta = map(ctypes.c_float, factors)
    how = (get_cublas_handle(), turn_b, turn_a, o, n, i, ctypes.addressof(alpha))
    first, second = (b.data.ptr, _code(b), line_b), (a.data.ptr, _code(a), line_a)
    step, line = (stride // out.itemsize for stride in out.strides[:2])
    last = (ctypes.addressof(beta), out.data.ptr, _code(out), line if n > 1 else o)
    kind = (_compute_type(a), cublas.CUBLAS_GEMM_DEFAULT_TENSOR_OP)
    if count == 1:
        cublas.gemmEx(*how, *first, *second, *last, *kind)
    else:
        cublas.gemmStridedBatchedEx(
            *how, *first, step_b, *second, step_a, *last, step, count, *kind
        )


def _code(x: Array) -> int:
    """The dtype, as CUDA's libraries number it."""
    from cupy_backends.cuda.api import runtime

    return getattr(runtime, CODES[CODES.index(x.dtype.name) + 1])


def _compute_type(x: Array) -> int:
    """float32, or TF32 on the way there: what CuPy does in two dimensions."""
    from cupy._core import get_compute_type
    from cupy_backends.cuda.libs import cublas

    tf32 = x.dtype.name == "float32" and get_compute_type(x.dtype) == TF32
    return cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if tf32 else cublas.CUBLAS_COMPUTE_32F
