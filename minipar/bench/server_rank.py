"""A worker of `bench train` with a parameter server, and `bench ps`: what a server can move.

    bench train --ranks 2 --strategy ps-sync,ps-async     2 workers, and a third process: the server
    bench ps                                              1 worker, 1 server

A pull is timed from the question until all weights are there, a push from the gradient until the
server has applied it, with SGD. Rows are those of a table, pulled and pushed by index.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from minipar import __version__
from minipar.bench.workloads import Workload
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.nn import Embedding, Module
from minipar.optim import SGD
from minipar.parallel.parameter_server import (
    ASYNC,
    SYNC,
    ParameterServer,
    Roles,
    Rule,
    pulls,
    serve,
)
from minipar.random import Draw, Init
from minipar.sparse import RowGradient
from minipar.tensor import Tensor

RULES: Mapping[str, Rule] = MappingProxyType({"ps-sync": SYNC, "ps-async": ASYNC})
MB = 2**20
WIDTH = 64  # numbers in a row of the table
TABLE_ROWS = 100_000
WARM_UP = 5


class ServedRank:
    """A worker that trains the workload; weights and optimizer are on the server."""

    version = f"minipar {__version__}"

    def __init__(self, work: Workload, roles: Roles) -> None:
        assert roles.worker is not None
        self.work, self.rank, self.ranks, self.done = work, roles.worker, len(roles.worker_ranks), 0
        self.model = work.model(Init(), **work.sizes)
        self.parallel = ParameterServer(self.model, roles, work.optimizer)

    def batch(self, n: int) -> Any:
        return self.work.batch(n * self.ranks + self.rank)

    def given(self, array: np.ndarray) -> Any:
        return array

    def step(self, x: Any, y: np.ndarray) -> float:
        first = self.rank * len(y)
        draw = Draw(0, self.done, range(first, first + len(y)))
        self.done += 1
        self.parallel.zero_grad()
        loss = self.work.loss(self.model(x, draw), y)
        loss.backward()
        self.parallel.sync_gradients(len(y))
        self.parallel.step()
        return loss.item()

    def comm_ms(self, since_ns: int) -> float | None:
        return None

    def more(self) -> dict[str, float]:
        return {}


def serve_workload(roles: Roles, work: Workload, strategy: str) -> None:
    """Be the server of such workers."""
    serve(roles, work.model(Init(), **work.sizes), work.optimizer, RULES[strategy])


# -- bench ps -----------------------------------------------------------------------------------


class Weights(Module):
    """A vector of so many bytes, and a table."""

    def __init__(self, nbytes: int) -> None:
        self.x = Tensor(np.zeros(nbytes // 4, np.float32), requires_grad=True)
        self.table = Embedding(Init(), TABLE_ROWS, WIDTH, sparse=True)


def bench_ps(nbytes: int = 16 * MB, rows: int = 1000, times: int = 50) -> list[dict[str, Any]]:
    """Time pulls and pushes between a worker and a server, each a process.

    nbytes: of the dense weights.  rows: of a table, of 64 floats each.  times: of which the median
    counts.  Returns a row for each thing: what, bytes, seconds, gb_s (bytes by seconds).
    """
    found: list[dict[str, Any]] = run(_rank, 2, args=(nbytes, rows, times), backend="process")[0]
    return found


def _rank(world: Group, nbytes: int, rows: int, times: int) -> list[dict[str, Any]] | None:
    roles, model = Roles(world), Weights(nbytes)
    if roles.is_server:
        serve(roles, model, _sgd, ASYNC)
        return None
    with ParameterServer(model, roles, _sgd) as ps:
        calls = _calls(ps, rows)
        seconds = {what: _median(call, times) for what, call in calls.items()}
    dense, sparse = nbytes, rows * WIDTH * 4
    sizes = {"pull": dense, "push": dense, "pull rows": sparse, "push rows": sparse}
    return [
        {"what": w, "bytes": sizes[w], "seconds": s, "gb_s": sizes[w] / s / 1e9}
        for w, s in seconds.items()
    ]


def _sgd(named: Iterable[tuple[str, Tensor]]) -> SGD:
    return SGD(named, lr=0.01)


def _calls(ps: ParameterServer, rows: int) -> dict[str, Callable[[], None]]:
    (name, table), worker = next(iter(ps.tables.items())), ps.worker
    ids = np.sort(np.random.default_rng(0).choice(TABLE_ROWS, rows, replace=False))
    of_rows = RowGradient(ids, np.full((rows, WIDTH), 1e-3, np.float32), table.shape)
    dense = np.full(ps.dense["x"].shape, 1e-3, np.float32)

    def pull_rows() -> None:
        table.forget()
        table[ids]

    def push(gradients: Mapping[str, Any]) -> None:
        ps.push(gradients)
        ps.step()
        pulls.finish(worker, pulls.ask(worker, worker.clock, {}, {}))  # answered when it is applied

    return {
        "pull": ps.pull,
        "push": partial(push, {"x": dense}),
        "pull rows": pull_rows,
        "push rows": partial(push, {name: of_rows}),
    }


def _median(call: Callable[[], None], times: int) -> float:
    seconds = []
    for _ in range(WARM_UP + times):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[WARM_UP:])


def lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The rows for people."""
    yield f"{'one worker, one server':24s}{'bytes':>12s}{'time':>11s}{'GB/s':>8s}"
    for row in rows:
        time_ms, speed = row["seconds"] * 1e3, row["gb_s"]
        yield f"{row['what']:24s}{row['bytes']:12,d}{time_ms:8.2f} ms{speed:8.2f}"
