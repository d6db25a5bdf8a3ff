"""Rows of a table, picked by integers."""

from __future__ import annotations

from collections.abc import Sequence

from minipar.array import Array, array_module, describe
from minipar.errors import ShapeMismatch, UsageError
from minipar.sparse import RowGradient, sum_by_id
from minipar.tensor import Tensor, record


def embedding(w: Tensor, ids: Tensor | Array, sparse: bool = False) -> Tensor:
    """z = w[ids].   w: [n, d]   ids: integers [...]   z: [..., d].   Keeps ids until backward.

    dw adds up the rows of dz that share an id, always in the same order, so that it is the same to
    the bit (`sum_by_id`).
    sparse: dw is a RowGradient: time and memory grow with the ids and not with n. w must be a leaf,
    since only the engine and the optimizers know such gradients.
    """
    index = ids.data if isinstance(ids, Tensor) else ids
    if w.ndim != 2 or index.dtype.kind not in "iu":
        raise ShapeMismatch(
            f"embedding: w is {describe(w.data)} (must be [n, d]), the ids are "
            f"{describe(index)} (must be integers)."
        )
    n, d = w.shape
    if index.size and (index.min() < 0 or index.max() >= n):
        raise ShapeMismatch(
            f"embedding: the ids run from {index.min()} to {index.max()}, the table has {n} rows."
            " Is the vocabulary of the model that of the data?"
        )

    if sparse and w._node is not None:
        raise UsageError(
            "embedding: with sparse=True the table must be a leaf, a parameter; this one was "
            "computed, and the op that computed it needs a dense gradient."
        )

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        present, sums = sum_by_id(index.reshape(-1), dz.reshape(index.size, d))
        if sparse:
            return (RowGradient(present, sums, (n, d)),)
        dw = array_module(dz).zeros((n, d), dz.dtype)
        dw[present] = sums
        return (dw,)

    return record(w.data[index], (w,), vjp)
