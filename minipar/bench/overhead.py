"""What recording an op costs: tiny arrays, on which the arithmetic itself takes no time.

Each op is called on [2, 2] arrays, in turn with the NumPy call inside it. Both take the least of
many rounds, so what disturbs one of them does not count.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from minipar.ops import add, linear, mul
from minipar.tensor import Tensor

CALLS = 2000  # in each round


# name -> (the op on two tensors, what it asks of NumPy)
OPS: Mapping[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = MappingProxyType(
    {
        "add": (add, np.add),
        "mul": (mul, np.multiply),
        "linear": (linear, np.matmul),
    }
)


def overhead(rounds: int = 15) -> list[dict[str, Any]]:
    """Two rows for each op, of engine minipar and engine numpy; step_ms is that of one call.

    over_us: microseconds above NumPy's own call.
    """
    arrays = np.ones((2, 2), np.float32), np.ones((2, 2), np.float32)
    tensors = tuple(Tensor(a, requires_grad=True) for a in arrays)
    rows = []
    for name, (op, own) in OPS.items():
        calls = (lambda op=op: op(*tensors), lambda own=own: own(*arrays))
        mine, numpys = _least(calls, rounds)
        for engine, ms in (("minipar", mine), ("numpy", numpys)):
            row = {"engine": engine, "model": f"op {name}", "ranks": 1, "threads": 1}
            rows.append(row | {"step_ms": ms, "over_us": (ms - numpys) * 1e3})
    return rows


def _least(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Milliseconds of one call of each."""
    times = [[timeit.timeit(f, number=CALLS) for f in calls] for _ in range(rounds)]
    return [min(of_one) / CALLS * 1e3 for of_one in zip(*times)]


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    return f"{row['engine']:9s}{row['model']:12s}{row['step_ms'] * 1e3:8.2f} µs a call" + (
        f", {row['over_us']:.2f} µs above NumPy's own" if row["engine"] == "minipar" else ""
    )
