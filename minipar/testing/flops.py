"""Counting the multiplications of a model, without touching its code.

Arrays of the class `Counted` count the matrix products that they take part in, and what is computed
from them is counted again. So it is enough that the weights of a model are such arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minipar.nn import Module


class Counted(np.ndarray):
    """An array [..., n, k] whose products with [..., k, m] add n·k·m each to counter[0]."""

    counter: list[int]

    def __array_finalize__(self, source: Any) -> None:
        self.counter = getattr(source, "counter", [0])

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [_plain(x) for x in inputs]
        if "out" in options:
            options["out"] = tuple(_plain(x) for x in options["out"])
        z = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            self.counter[0] += z.size * plain[0].shape[-1]
        if not isinstance(z, np.ndarray):
            return z
        counted = z.view(Counted)
        counted.counter = self.counter
        return counted


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Counted) else x


@contextmanager
def counting_products(model: Module) -> Iterator[list[int]]:
    """Inside, the one number of the list is how many multiplications the model has made so far."""
    counter, before = [0], [(x, x.data) for x in model.parameters()]
    for x, data in before:
        x.data = data.view(Counted)
        x.data.counter = counter
    try:
        yield counter
    finally:
        for x, data in before:
            x.data = data
