r"""A table that is not here: rows come when they are asked for.

    on the servers    [n, d]  cut by rows                   on this worker
    0 ┌─────────────┐                                       ids  [k]      [1, 4]
    1 ├─────────────┤ ──────────────────────────────────►   rows [k, d]
    2 ├─────────────┤                                       x.data[[4, 1, 4]]  gives [3, d]
    4 ├─────────────┤ ──────────────────────────────────►

The op `embedding` picks rows with w.data[ids], and its gradient is a RowGradient; neither needs the
whole array. So a RemoteTable stands where the array was: it has its shape and dtype, and
the rows that this step has touched. What was not pulled before (`ParameterServer.pull(rows=...)`)
is pulled when it is picked.

Letters: n rows of the table, d numbers in each, k rows that are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minipar.array import Array
from minipar.errors import UsageError
from minipar.random import Init

Fetch = Callable[[np.ndarray], Array]  # ids, rising -> their rows [k, d]
Put = Callable[[Array], None]  # [n, d]
HOLLOW_BYTES = 1 << 20


class RemoteTable:
    """Looks like an array [n, d] to whom picks rows of it."""

    ndim = 2

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, fetch: Fetch, put: Put, xp: Any = np
    ) -> None:
        """xp: the module of the arrays that it gives; what it keeps is in host memory."""
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._fetch, self._put, self._xp = fetch, put, xp
        self.forget()

    def __repr__(self) -> str:
        return f"RemoteTable({self.dtype}[{self.shape[0]}, {self.shape[1]}], {len(self.ids)} rows)"

    def __len__(self) -> int:
        return self.shape[0]

    def forget(self) -> None:
        """Let go of all rows: they are old."""
        self.ids = np.empty(0, np.int64)
        self.rows = np.empty((0, *self.shape[1:]), self.dtype)

    def keep(self, ids: np.ndarray, rows: Array) -> None:
        """Add rows that are not here yet.  ids: rising."""
        if not len(self.ids):
            self.ids, self.rows = ids, rows
            return
        together = np.concatenate([self.ids, ids])
        order = np.argsort(together, kind="stable")
        self.ids, self.rows = together[order], np.concatenate([self.rows, rows])[order]

    def missing(self, ids: Any) -> np.ndarray:
        """Those that are not here, rising, each once."""
        return np.setdiff1d(np.asarray(ids).reshape(-1).astype(np.int64), self.ids)

    def __getitem__(self, ids: Any) -> Array:
        """Rows, in the shape of the ids; those that are missing are pulled."""
        if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu":
            raise UsageError(
                f"{self!r} gives rows picked by an array of integers, not by {type(ids).__name__}."
            )
        missing = self.missing(ids)
        if len(missing):
            self.keep(missing, self._fetch(missing))
        return self._xp.asarray(self.rows[np.searchsorted(self.ids, ids)])

    def __setitem__(self, place: Any, value: Any) -> None:
        """table[...] = value, all of it, goes to the servers."""
        if place is not Ellipsis or np.shape(value) != self.shape:
            raise UsageError(f"{self!r} can be set as a whole only, table[...] = array.")
        self._put(np.asarray(value, self.dtype))
        self.forget()

    def copy(self) -> Array:
        """All of it, from the servers: [n, d] in the memory of this rank."""
        return self._fetch(np.arange(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.copy().astype(dtype or self.dtype, copy=False)


@dataclass(frozen=True)
class Hollow(Init):
    """An Init whose large arrays have a shape, but take no memory: for the model of a worker.

    model = WideDeep(Hollow(), tables, numbers)        # ParameterServer(model, ...) fills it
    """

    def normal(self, parameter: str, shape: tuple[int, ...], std: float) -> Array:
        if math.prod(shape) * np.dtype(self.dtype).itemsize < HOLLOW_BYTES:
            return super().normal(parameter, shape, std)
        return np.broadcast_to(np.zeros((), self.dtype), shape)


def is_hollow(x: Array) -> bool:
    return x.size > 1 and not any(x.strides)
