"""Sums down the columns, always in the same order, and a bias added (columns.cu)."""

from __future__ import annotations

from typing import Any

from minipar.cuda.source import Array, contiguous, launch, threads_of_row, width

BLOCKS = 528  # that the rows are shared out among, over all columns
FEW = 2048  # so many rows are added up in one launch: a second one would take longer
WARPS, LAST_WARPS = 8, 32  # of a block; they take turns with the rows


def column_sums(x: Array) -> Array:
    """Σ over the rows, made in float32.   x: [n, d] -> [d], of x's dtype."""
    import cupy

    x, (n, d) = contiguous(x), x.shape
    if n <= FEW:
        return _in_one("few_sums", x, x.dtype)
    w = width(d, x)
    across = -(-d // (32 * w))
    down = max(1, min(BLOCKS // max(1, across), -(-n // WARPS)))
    sums = cupy.empty((down, d), "float32")
    launch(("columns", "column_sums", x.dtype, w), (across, down), (32, WARPS), x, sums, n, d)
    return add_up(sums, x.dtype)


def add_up(sums: Array, dtype: Any) -> Array:
    """Σ over the rows of few.   sums: float32 [n, d] -> [d], of dtype."""
    return _in_one("last_sums", sums, dtype)


def _in_one(name: str, x: Array, dtype: Any) -> Array:
    import cupy

    n, d = x.shape
    z = cupy.empty(d, dtype)
    launch(("columns", name, z.dtype, 1), (-(-d // 32), 1), (32, LAST_WARPS), x, z, n, d)
    return z


def add_bias(z: Array, bias: Array) -> None:
    """z += bias, in place.   z: [n, d], contiguous   bias: [d]."""
    n, d = z.shape
    w = width(d, z, bias)
    launch(("columns", "add_bias", z.dtype, w), (n,), threads_of_row(d, w), z, bias, d)
