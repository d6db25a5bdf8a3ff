"""Wide & deep: what is remembered and what is generalised, added up (Cheng et al. 2016).

    ids   [b, f] ──┬─ wide table, one number an id ─── sum ──────────────────────┐
                   └─ deep table, d numbers an id ──┐                            + ── logits [b]
    dense [b, k] ──┬─ concatenated with the vectors ┴─ relu ─ ... ─ relu ─ out ──┤
                   └─ linear ────────────────────────────────────────────────────┘

The wide part is a linear model: it learns by heart that this id is clicked often. The deep part
places the ids in a space where similar ones are near each other. Nearly all parameters are in the
two tables, of which a batch touches few rows, so their gradients are sparse (sparse.py); train it
with Adagrad (as the authors trained their deep part), or SGD.

The tables of all fields stand one below the other in one, field n from row `offsets[n]` on: one
look-up, and one array to share out among ranks.

Letters: b batch items, k numbers and f ids of each, d features of an id.
Left out on purpose: crossed features. A crossed pair of fields is a field: add it to the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from minipar.array import Array, array_module, describe
from minipar.errors import ShapeMismatch
from minipar.nn import Dropout, Embedding, Linear, Module
from minipar.ops import concat, relu
from minipar.random import Draw, Init
from minipar.tensor import Tensor


class WideDeep(Module):
    """x: (dense float [b, k], ids integers [b, f])   ->   logits [b], for p = sigmoid(logit).

    tables: how many ids each field has, [f]; field n has the ids 0 .. tables[n] - 1.
    numbers: k.   hidden: the widths of the relu layers.
    """

    def __init__(
        self,
        init: Init,
        tables: Sequence[int],
        numbers: int,
        d: int = 8,
        hidden: Sequence[int] = (64, 32),
        dropout: float = 0.0,
        sparse: bool = True,
    ) -> None:
        self.tables = tuple(tables)
        self.offsets = (0, *accumulate(tables))
        n, sizes = self.offsets[-1], [len(tables) * d + numbers, *hidden]
        self.wide = Embedding(init / "wide", n, 1, std=0.0, sparse=sparse)  # unseen ids say nothing
        self.linear = Linear(init / "linear", numbers, 1)
        self.deep = Embedding(init / "deep", n, d, std=0.1, sparse=sparse)
        self.layers = [
            Linear(init / "layers" / n, i, o, std=(2 / i) ** 0.5)
            for n, (i, o) in enumerate(pairwise(sizes))
        ]
        self.dropout = Dropout(init / "dropout", dropout)
        self.out = Linear(init / "out", sizes[-1], 1, bias=False)

    def __call__(self, x: tuple[Array, Array], draw: Draw | None = None) -> Tensor:
        dense, ids = x
        b = len(ids)
        rows = self.rows(ids)
        numbers = dense if isinstance(dense, Tensor) else Tensor(dense)
        h = concat([self.deep(rows).reshape(b, -1), numbers], axis=1)
        for layer in self.layers:
            h = relu(layer(h))
        wide = self.wide(rows).reshape(b, -1).sum(axis=1)
        return wide + (self.linear(numbers) + self.out(self.dropout(h, draw))).reshape(b)

    def touched(self, x: tuple[Array, Array]) -> dict[str, Array]:
        """By the name of each table, the rows that x will pick: what servers are asked for."""
        rows = self.rows(x[1])
        return {"wide.weight": rows, "deep.weight": rows}

    def rows(self, ids: Array) -> Array:
        """Where the ids of all fields stand in the common tables.   [b, f] -> [b, f]."""
        xp = array_module(ids)
        if ids.ndim != 2 or ids.shape[1] != len(self.tables):
            raise ShapeMismatch(
                f"WideDeep: the ids are {describe(ids)}, the model has {len(self.tables)} fields."
            )
        if ids.size and ((ids < 0) | (ids >= xp.asarray(self.tables))).any():
            raise ShapeMismatch(
                f"WideDeep: the largest ids of the fields are {ids.max(axis=0).tolist()}, the "
                f"smallest {ids.min(axis=0).tolist()}; the model has {list(self.tables)} ids. "
                "Are its tables those of the data (`tables=data.tables`)?"
            )
        return ids + xp.asarray(self.offsets[:-1], ids.dtype)
