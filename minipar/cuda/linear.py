"""Linear layers: products by cuBLAS, and what goes with them in one pass (columns.cu, gelu.cu).

Letters: n rows, i features in, o features out.
"""

from __future__ import annotations

from collections.abc import Sequence

from minipar.cuda.columns import add_bias, column_sums
from minipar.cuda.products import matmul
from minipar.cuda.source import Array, Made, contiguous, launch, threads_of_row, width


def linear(x: Array, w: Array, b: Array | None) -> Made:
    """z and the vjp of `ops.linear`.   Keeps x and w."""
    rows = x.reshape(-1, len(w))
    z = matmul(rows, w)
    if b is not None:
        add_bias(z, b)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return _back(dz.reshape(len(rows), w.shape[1]), x, w, wanted)

    return z.reshape(*x.shape[:-1], w.shape[1]), vjp


def linear_gelu(x: Array, w: Array, b: Array | None) -> Made:
    """z and the vjp of `ops.linear_gelu`.   Keeps x, w and the product, but no slope."""

    product = matmul(x.reshape(-1, len(w)), w)
    z = _gelu("gelu", (product,), b)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dz = contiguous(dz).reshape(product.shape)
        return _back(_gelu("gelu_back", (dz, product), b), x, w, wanted)

    return z.reshape(*x.shape[:-1], w.shape[1]), vjp


def gelu(x: Array) -> Made:
    """z and the vjp of `ops.gelu`.   Keeps x."""

    x = contiguous(x)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (_gelu("gelu_back", (contiguous(dz), x), None),)

    return _gelu("gelu", (x,), None), vjp


def _back(dz: Array, x: Array, w: Array, wanted: tuple[bool, ...]) -> list[Array | None]:
    """The gradients by x, w and b.   dz: [n, o]."""
    dx = matmul(dz, w.T).reshape(x.shape) if wanted[0] else None
    rows, dw = x.reshape(-1, len(w)), None
    if wanted[1]:  # as w lies: if w is a table transposed, then dw, transposed, is one
        dw = matmul(rows.T, dz) if w.flags.c_contiguous else matmul(dz.T, rows).T
    return [dx, dw, column_sums(dz) if wanted[2] else None] if len(wanted) > 2 else [dx, dw]


def _gelu(name: str, arrays: tuple[Array, ...], bias: Array | None) -> Array:
    """A kernel of gelu.cu with a block to each row.   arrays: alike, contiguous."""
    import cupy

    z = cupy.empty_like(arrays[0])
    o = z.shape[-1] if z.ndim else 1
    w = width(o, *arrays, *(() if bias is None else (bias,)))
    kernel = ("gelu", name, z.dtype, w)
    launch(kernel, (z.size // max(1, o),), threads_of_row(o, w), *arrays, bias, z, o)
    return z
