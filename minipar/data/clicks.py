"""Tables of clicks: rows of numbers and ids, and whether somebody clicked.

    dense: float32 [b, k]       numbers, such as how often this ad was seen
    ids:   int64   [b, f]       one id a field: which ad, which page, which city
    y:     float32 [b]          1 a click, 0 none

Letters: n rows, b rows of a batch, k numbers and f ids in a row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minipar.data.click_model import TABLES, ClickModel, Rows, entropy

Batch = tuple[tuple[np.ndarray, np.ndarray], np.ndarray]


class Clicks:
    """n rows in memory, given out in batches."""

    def __init__(
        self,
        dense: np.ndarray,
        ids: np.ndarray,
        click: np.ndarray,
        tables: tuple[int, ...],
        best_loss: float | None = None,
    ) -> None:
        """tables: how many ids each field has, [f].

        best_loss: the lowest mean loss that any model can expect, in nats; None: not known.
        """
        self.dense, self.ids, self.click = dense, ids, click
        self.tables, self.best_loss = tables, best_loss

    @property
    def numbers(self) -> int:
        """k"""
        return self.dense.shape[1]

    def __len__(self) -> int:
        return len(self.click)

    def batch(self, indices: np.ndarray) -> Batch:
        """x = (dense float32 [b, k], ids int64 [b, f]) and y float32 [b]."""
        return (self.dense[indices], self.ids[indices].astype(np.int64)), self.click[indices]


def load_clicks(
    path: str | Path | None = None, seed: int = 0, train: int = 200_000, validation: int = 20_000
) -> tuple[Clicks, Clicks]:
    """(train, validation)

    path: None generates so many rows from the known model of this seed (data.click_model).
    """
    model = ClickModel(seed)
    return _known(model.rows(0, train)), _known(model.rows(train, validation))


def _known(rows: Rows) -> Clicks:
    return Clicks(rows.dense, rows.ids.astype(np.int32), rows.click, TABLES, entropy(rows.p))
