"""Matrix products, where nearly all the arithmetic of a network is.

Letters: n rows, i features in, o features out.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from minipar import cuda
from minipar.array import Array, sum_dtype
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, record, shown, unbroadcast


def matmul(x: Tensor, w: Tensor) -> Tensor:
    """z = x @ w.   x: [..., n, i]   w: [..., i, o]   z: [..., n, o].

    Keeps x and w until backward. The leading axes broadcast as in NumPy.
    """
    if x.ndim < 2 or w.ndim < 2 or x.shape[-1] != w.shape[-2]:
        raise ShapeMismatch(
            f"matmul: {shown(x)} @ {shown(w)}: the last axis of the first must "
            "equal the last but one of the second, and both need two axes or more. Is a .T missing?"
        )
    if w.ndim == 2 and x.ndim > 2:
        return linear(x, w)  # one product of all rows, instead of one for each batch item

    product = cuda.matmul if cuda.fast(x.data, w.data) else operator.matmul

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (
            unbroadcast(product(dz, w.data.swapaxes(-1, -2)), x.shape) if wanted[0] else None,
            unbroadcast(product(x.data.swapaxes(-1, -2), dz), w.shape) if wanted[1] else None,
        )

    return record(product(x.data, w.data), (x, w), vjp)


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """z = x @ w + b.   x: [..., i]   w: [i, o]   b: [o]   z: [..., o].   Keeps x and w.

    Equal to `matmul(x, w) + b`; the sum is written into the product, and all leading axes of x are
    rows of one product.
    """
    check_linear(x, w, b)
    parents = (x, w) if b is None else (x, w, b)
    if cuda.fast(*(p.data for p in parents)):
        z, back = cuda.linear(x.data, w.data, None if b is None else b.data)
        return record(z, parents, back)
    shape, (i, o) = x.data.shape, w.data.shape
    flat, n = len(shape) == 2, math.prod(shape[:-1])
    z = (x.data if flat else x.data.reshape(n, i)) @ w.data
    if b is not None:
        z += b.data
    if not flat:
        z = z.reshape(*shape[:-1], o)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        rows = dz.reshape(n, o)
        dx = (rows @ w.data.T).reshape(shape) if wanted[0] else None
        dw = x.data.reshape(n, i).T @ rows if wanted[1] else None
        if b is None:
            return dx, dw
        db = rows.sum(axis=0, dtype=sum_dtype(rows.dtype)) if wanted[2] else None
        return dx, dw, db if db is None else db.astype(rows.dtype, copy=False)

    return record(z, parents, vjp)


def check_linear(x: Tensor, w: Tensor, b: Tensor | None) -> None:
    """Raises: ShapeMismatch, if x @ w + b does not fit."""
    given, shape = x.data.shape, w.data.shape
    if len(shape) != 2 or not given or given[-1] != shape[0]:
        raise ShapeMismatch(
            f"linear: x is {shown(x)}, w is {shown(w)}: w must be [i, o] with i "
            "the last axis of x. Weights lie [in, out] here, not [out, in]."
        )
    if b is not None and b.data.shape != shape[1:]:
        raise ShapeMismatch(f"linear: b is {shown(b)}, w is {shown(w)}.")
