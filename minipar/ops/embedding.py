"""Rows of a table, picked by integers."""

from __future__ import annotations

from collections.abc import Sequence

from minipar.array import Array, array_module, describe
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, record


def embedding(w: Tensor, ids: Tensor | Array) -> Tensor:
    """z = w[ids].   w: [n, d]   ids: integers [...]   z: [..., d].   Keeps ids until backward.

    dw adds up the rows of dz that share an id: sorted by id, each id's rows stand together, and
    `add.reduceat` sums each run. Always in the same order, so the result is the same to the bit.
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

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        xp = array_module(dz)
        dw = xp.zeros((n, d), dz.dtype)
        if index.size:
            order = xp.argsort(index.reshape(-1), kind="stable")
            present, first = xp.unique(index.reshape(-1)[order], return_index=True)
            dw[present] = xp.add.reduceat(dz.reshape(-1, d)[order], first, axis=0)
        return (dw,)

    return record(w.data[index], (w,), vjp)
