"""The gradient of a large table of which a batch touches a few rows.

    table w  [n, d]                   its gradient, as it is kept here
    0 ┌─────────────┐
    1 ├─────────────┤ ◄── id 1        ids  [k]      [1, 4]
    2 ├─────────────┤                 rows [k, d]   [dz₀, dz₁ + dz₂]
    3 ├─────────────┤
    4 ├─────────────┤ ◄── ids 4, 4    all other rows are zero, and are not there
    5 └─────────────┘

A click log has tables of millions of rows, and a batch picks some hundreds of them. A dense
gradient would cost the time and the memory of the whole table in each step, on each rank, and on
the wire. This one costs what was touched.

Letters: n rows of the table, d its columns, k rows that were touched.
"""

from __future__ import annotations

from typing import Any

from minipar.array import Array, array_module, describe
from minipar.errors import ShapeMismatch
from minipar.segments import sum_by_id


class RowGradient:
    """A gradient of shape [n, d] that is zero except in `rows`, which stand at `ids`.

    ids: integers [k], rising, each once.   rows: [k, d].
    It can do what the engine asks of a gradient: be added up with others of its kind (then it stays
    one) or with arrays of shape [n, d] (then the sum is an array).
    """

    __slots__ = ("ids", "rows", "shape")
    __array_ufunc__ = None  # so that `array + gradient` asks RowGradient.__radd__
    base = None  # a view of nothing: see Tensor.zero_grad
    ndim = 2

    def __init__(self, ids: Array, rows: Array, shape: tuple[int, ...]) -> None:
        if rows.shape != (len(ids), shape[1]):
            raise ShapeMismatch(
                f"RowGradient: {describe(ids)} ids need rows of shape [{len(ids)}, {shape[1]}], "
                f"not {describe(rows)}."
            )
        self.ids, self.rows, self.shape = ids, rows, shape

    @classmethod
    def of(cls, ids: Array, rows: Array, shape: tuple[int, ...]) -> RowGradient:
        """Rows in any order, where those that share an id are added up."""
        return cls(*sum_by_id(ids, rows), shape)

    @property
    def dtype(self) -> Any:
        return self.rows.dtype

    def __repr__(self) -> str:
        return f"RowGradient({describe(self)}, {len(self.ids)} rows)"

    def astype(self, dtype: Any) -> RowGradient:
        return RowGradient(self.ids, self.rows.astype(dtype), self.shape)

    def copy(self) -> RowGradient:
        return self.astype(self.dtype)

    def dense(self) -> Array:
        """The array [n, d]."""
        return self.add_to(array_module(self.rows).zeros(self.shape, self.dtype))

    def add_to(self, total: Any) -> Any:
        """total += this; the sum. total: an array, which is written to, or a RowGradient."""
        if isinstance(total, RowGradient):
            return total + self
        total[self.ids] += self.rows  # each id stands there once
        return total

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, RowGradient):
            return self.add_to(other.copy())
        if other.shape != self.shape:
            raise ShapeMismatch(f"{self} + {other}: they are gradients of different tables.")
        xp = array_module(self.rows)
        ids = xp.concatenate([self.ids, other.ids])
        return RowGradient.of(ids, xp.concatenate([self.rows, other.rows]), self.shape)

    __radd__ = __add__  # array + rows; no += : `total += rows` is total = total + rows

    def __imul__(self, factor: float) -> RowGradient:
        self.rows *= factor
        return self


def values(g: Any) -> Array:
    """The numbers of a gradient that may differ from zero: the array itself, or the rows."""
    return g.rows if isinstance(g, RowGradient) else g
