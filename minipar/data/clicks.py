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
from minipar.data.click_table import Layout, read_table
from minipar.errors import UsageError

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
    path: str | Path | None = None,
    layout: Layout | None = None,
    rows: int = 220_000,
    seed: int = 0,
) -> tuple[Clicks, Clicks]:
    """(train, validation): of the rows, in the order they stand in, the last eleventh validates.

    path:   a CSV file, .gz or not (data.click_table), read row by row and kept as numbers; None
            generates the rows from the known model of this seed (data.click_model).
    layout: which column is what; None guesses.  rows: the most that are taken.
    Raises: UsageError with the file, the line and the column.
    """
    if path is None:
        if rows < 2:
            raise UsageError(f"{rows} rows cannot be divided for training and validation.")
        model, cut = ClickModel(seed), _cut(rows)
        return _known(model.rows(0, cut)), _known(model.rows(cut, rows - cut))
    path = Path(path)
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}; pass a table of clicks, such as a CSV file.")
    dense, ids, click, layout = read_table(path, layout, rows)
    cut = _cut(len(click))
    dense = _standardised(dense, dense[:cut])
    return (
        Clicks(dense[:cut], ids[:cut], click[:cut], layout.tables),
        Clicks(dense[cut:], ids[cut:], click[cut:], layout.tables),
    )


def _cut(rows: int) -> int:
    return min(rows - 1, rows - rows // 11)


def _known(rows: Rows) -> Clicks:
    return Clicks(rows.dense, rows.ids.astype(np.int32), rows.click, TABLES, entropy(rows.p))


def _standardised(dense: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 in each column of the training rows; what is missing is the mean."""
    known = ~np.isnan(train)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, train, 0).sum(axis=0, dtype=np.float64) / count
    square = np.where(known, train - mean, 0) ** 2
    std = np.sqrt(square.sum(axis=0) / count)
    scaled = (dense - mean) / np.where(std > 0, std, 1)
    return np.where(np.isnan(dense), 0, scaled).astype(np.float32)
