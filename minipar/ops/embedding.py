"""Rows of a table, picked by integers."""

from __future__ import annotations

from collections.abc import Sequence

from minipar import cuda
from minipar.array import Array, beside, describe, extremes
from minipar.errors import ShapeMismatch, UsageError
from minipar.segments import sum_to_table
from minipar.sparse import RowGradient
from minipar.tensor import Tensor, plain, record, shown


def embedding(w: Tensor, ids: Tensor | Array, sparse: bool = False) -> Tensor:
    """z = w[ids].   w: [n, d]   ids: integers [...]   z: [..., d].   Keeps ids until backward.

    dw adds up the rows of dz that share an id, always in the same order, so that it is the same to
    the bit (`segments`).
    sparse: dw is a RowGradient: time and memory grow with the ids and not with n. w must be a leaf,
    since only the engine and the optimizers know such gradients.
    On a GPU ids are best given as NumPy arrays: their range is checked without waiting for it.
    """
    index = plain(ids)
    if w.ndim != 2 or index.dtype.kind not in "iu":
        raise ShapeMismatch(
            f"embedding: w is {shown(w)} (must be [n, d]), the ids are "
            f"{describe(index)} (must be integers)."
        )
    n, d = w.shape
    if index.size:
        low, high = extremes(index)
        if low < 0 or high >= n:
            raise ShapeMismatch(
                f"embedding: the ids run from {low} to {high}, the table has {n} rows."
                " Is the vocabulary of the model that of the data?"
            )
    index = beside(index, w.data)
    if sparse and w._node is not None:
        raise UsageError(
            "embedding: with sparse=True the table must be a leaf, a parameter; this one was "
            "computed, and the op that computed it needs a dense gradient."
        )

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        flat, rows = beside(index, dz).reshape(-1), dz.reshape(index.size, d)
        if sparse:
            return (RowGradient.of(flat, rows, (n, d)),)
        add_up = cuda.sum_to_table if cuda.fast(rows) else sum_to_table
        return (add_up(flat, rows, n),)

    return record(w.data[index], (w,), vjp)
