"""Matrix products by cuBLAS: one call for two dimensions, one for a batch.

CuPy's own `@` copies transposed operands of a batch, computes a batch of float16 in float32 and has
none of bfloat16. Here an operand may lie transposed, and rows may be longer than they are used, at
no cost: cuBLAS takes a stride. All products are summed up in float32.

    row-major  z = a b        lies in memory as        column-major  zᵀ = bᵀ aᵀ

cuBLAS counts columns first, so it is asked for the right-hand side.
float32 is multiplied as float32, or as TF32 (8 + 10 bits instead of 8 + 23, on tensor cores) if
CuPy does so, which CUPY_TF32=1 in the environment makes it do, or `use_tf32`.

Letters: z [n, o] = a [n, i] @ b [i, o]; a line is a row, or a column where an operand lies
transposed.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any, NamedTuple

import numpy as np

from minipar.cuda.source import Array

SINGLE, TF32 = 1, 7  # as CuPy numbers them
CODES = (("float32", "CUDA_R_32F"), ("float16", "CUDA_R_16F"), ("bfloat16", "CUDA_R_16BF"))


# A matrix, or a batch of them, as cuBLAS reads it: the array, 1 if it lies transposed, and how far
# it is from line to line, and from matrix to matrix.
Operand = tuple[Array, int, int, int]


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
    if len(batch) > 1:
        count = math.prod(batch)
        a, b, z = a.reshape(count, n, i), b.reshape(count, i, o), out.reshape(count, n, o)
        _call((n, i, o), operand(a), operand(b), operand(z), (scale, float(add)))
    else:
        _call((n, i, o), operand(a), operand(b), operand(out), (scale, float(add)))
    return out


def operand(x: Array) -> Operand:
    """x, or a copy if it lies neither by rows nor by columns.   x: [r, c] or [batch, r, c]."""
    shape, strides, size = x.shape, x.strides, x.itemsize
    r, c = shape[-2], shape[-1]
    down, across = strides[-2] // size, strides[-1] // size
    step = strides[0] // size if len(shape) > 2 and shape[0] > 1 else 0
    if (across == 1 or c == 1) and (down >= c or r == 1):
        return x, 0, down if r > 1 else c, step
    if (down == 1 or r == 1) and (across >= r or c == 1):
        return x, 1, across if c > 1 else r, step
    return x.copy(order="C"), 0, c, r * c


def use_tf32(on: bool) -> None:
    """From now on, multiply float32 as TF32, here and in CuPy's own `@`; or no longer."""
    from cupy._core import set_compute_type

    set_compute_type("float32", TF32 if on else SINGLE)


def _call(
    shape: tuple[int, int, int], a: Operand, b: Operand, z: Operand, factors: tuple[float, float]
) -> None:
    (n, i, o), lib, dtype = shape, _library(), a[0].dtype
    numbers = (ctypes.c_float * 2)(*factors)
    alpha = ctypes.addressof(numbers)
    tf32 = dtype.char == "f" and lib.compute_type(dtype) == TF32
    how = (lib.handle(), b[1], a[1], o, n, i, alpha)
    kind = (lib.tf32 if tf32 else lib.float32, lib.algorithm)
    left, right = (b[0].data.ptr, _code(b[0].dtype), b[2]), (a[0].data.ptr, _code(dtype), a[2])
    last = (alpha + 4, z[0].data.ptr, _code(z[0].dtype), z[2])
    if z[0].ndim == 2 or len(z[0]) == 1:
        lib.one(*how, *left, *right, *last, *kind)
    else:
        lib.many(*how, *left, b[3], *right, a[3], *last, z[3], len(z[0]), *kind)


class _Library(NamedTuple):
    """What is asked of CuPy and cuBLAS in each call."""

    one: Any
    many: Any
    handle: Any
    compute_type: Any
    float32: int
    tf32: int
    algorithm: int


@functools.cache
def _library() -> _Library:
    from cupy._core import get_compute_type
    from cupy.cuda.device import get_cublas_handle
    from cupy_backends.cuda.libs import cublas

    return _Library(
        cublas.gemmEx,
        cublas.gemmStridedBatchedEx,
        get_cublas_handle,
        get_compute_type,
        cublas.CUBLAS_COMPUTE_32F,
        cublas.CUBLAS_COMPUTE_32F_FAST_TF32,
        cublas.CUBLAS_GEMM_DEFAULT_TENSOR_OP,
    )


@functools.cache
def _code(dtype: Any) -> int:
    """A dtype as CUDA's libraries number it."""
    from cupy_backends.cuda.api import runtime

    return getattr(runtime, dict(CODES)[dtype.name])
