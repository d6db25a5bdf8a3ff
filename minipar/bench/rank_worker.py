"""One rank of a parallel job: it waits for an order, trains some steps, and answers.

    order   {"steps": 10}
    answer  {"step_ms": [8.1, ...], "comm_ms": 3.2, "wait_ms": 2.9, "peak_mb": 61.0}
    order   {"rows": 59500}                                                 an epoch of so many rows
    answer  {"steps": 465, "seconds": 0.64, "peak_mb": 61.0}                only rank 0 answers

    python -m minipar.bench.rank_worker minipar mlp SOCKET bucketed 2       a job of 2 ranks
    python -m minipar.bench.rank_worker torch mlp SOCKET RANK 2 FILE        a rank of such a job

Not meant to be called by hand: `bench_ranks` starts the jobs. Orders come over a socket of its own
to each rank, as in comm_worker.py. Batches of steps are made before the clock starts. In an epoch
they are drawn from arrays that are there, in another order each time, while the clock runs.

comm_ms is what calls of the group took on rank 0, wait_ms what of it went by before the last rank
had begun its call: all ranks are on one host, and so have one clock.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from minipar import __version__
from minipar.bench.pipeline_rank import PIPELINES, PipelineRank
from minipar.bench.server_rank import RULES, ServedRank, serve_workload
from minipar.bench.worker import peak_mb
from minipar.bench.workloads import WORKLOADS, Workload
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.events import EVERYBODY, last
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.parameter_server import Roles
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.parallel.tensor_layers import TensorKit
from minipar.parallel.tensor_strategy import TensorParallel
from minipar.random import Draw, Init

STRATEGIES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "dp": DataParallel,
        "bucketed": BucketedDataParallel,
        "overlapped": OverlappedDataParallel,
        "zero1": Zero1,
        "zero2": Zero2,
        "zero3": Zero3,
    }
)
TENSOR: Mapping[str, Mapping[str, bool]] = MappingProxyType(  # options of the TensorKit
    {
        "tp": MappingProxyType({}),
        "tp-overlap": MappingProxyType({"overlap": True}),
        "sequence": MappingProxyType({"sequence": True}),
    }
)


class MiniparRank:
    """A rank that trains the workload with a strategy."""

    version = f"minipar {__version__}"

    def __init__(self, work: Workload, strategy: str, group: Group) -> None:
        self.work, self.group, self.rank, self.ranks = work, group, group.rank, group.size
        self.done = 0
        self.model = work.model(Init(), **work.sizes)
        self.parallel = STRATEGIES[strategy](self.model, group, work.optimizer)

    def batch(self, n: int) -> Any:
        return self.work.batch(n * self.ranks + self.rank)

    def given(self, array: np.ndarray) -> Any:
        return array

    def step(self, x: Any, y: np.ndarray) -> float:
        first = self.first_row(len(y))
        draw = Draw(0, self.done, range(first, first + len(y)))
        self.done += 1
        self.parallel.zero_grad()
        loss = self.work.loss(self.model(x, draw), y)
        loss.backward()
        self.parallel.sync_gradients(len(y))
        self.parallel.step()
        return loss.item()

    def first_row(self, rows: int) -> int:
        return self.rank * rows

    def calls(self, since_ns: int) -> list[tuple[int, int]]:
        """Begin and end of each call of the group; `last` keeps more than those of a step."""
        found = [e for e in last() if e.peer == EVERYBODY and e.begin >= since_ns]
        return [(call.begin, call.end) for call in found]

    def waited_ns(self, calls: np.ndarray) -> int:
        """How much of these calls [n, 2] went by before all ranks had begun; collective."""
        begun = self.group.all_gather(calls)[:, :, 0].max(axis=0)
        return int(np.minimum(begun, calls[:, 1]).sum() - calls[:, 0].sum())

    def more(self) -> dict[str, float]:
        """What else there is to answer."""
        return {}


class TensorRank(MiniparRank):
    """A rank that has a part of each matrix. All ranks train on one batch, the same."""

    def __init__(self, work: Workload, strategy: str, group: Group) -> None:
        kit = TensorKit(group, **TENSOR[strategy])
        self.group, self.rank, self.ranks, self.done = group, group.rank, group.size, 0
        model: Any = work.model(Init(), **work.sizes, kit=kit)
        self.model, self.work = model, work._replace(loss=model.output.loss)
        self.parallel = TensorParallel(self.model, group, work.optimizer)

    def batch(self, n: int) -> Any:
        return self.work.batch(n)

    def first_row(self, rows: int) -> int:
        return 0


class TorchRank:
    """A rank of torch on gloo, as it is by default: DistributedDataParallel and the like."""

    def __init__(self, work: Workload, kind: str, rank: int, ranks: int, file: str) -> None:
        import torch
        import torch.distributed as dist

        from minipar.bench.torch_peer import TorchSteps, shared

        warnings.simplefilter("ignore", FutureWarning)
        self.rank, self.ranks, self.version = rank, ranks, f"torch {torch.__version__}"
        dist.init_process_group(
            "gloo", store=dist.FileStore(file, ranks), rank=rank, world_size=ranks
        )
        self.work, self.steps, self.given = work, TorchSteps(work, 1), torch.from_numpy
        shared(self.steps, kind, ranks)

    def batch(self, n: int) -> Any:
        return self.steps.batch(n * self.ranks + self.rank)

    def step(self, x: Any, y: Any) -> float:
        return self.steps.step(x, y)

    def comm_ms(self, since_ns: int) -> float | None:
        return None

    def more(self) -> dict[str, float]:
        return {}


class Products:
    """Nothing but the matrix products of a ReluMLP's step, in NumPy: what the machine can do."""

    def __init__(self, work: Workload, rank: int, ranks: int) -> None:
        self.work, self.rank, self.ranks = work, rank, ranks
        self.version = f"numpy {np.__version__}"
        pairs = pairwise(work.sizes["sizes"])
        self.weights = [np.zeros(pair, np.float32) for pair in pairs]

    def batch(self, n: int) -> Any:
        return self.work.batch(0)

    def given(self, array: np.ndarray) -> Any:
        return array

    def step(self, x: Any, y: np.ndarray) -> None:
        inputs = [x]
        for w in self.weights:
            inputs.append(inputs[-1] @ w)
        dz = inputs.pop()
        for w in reversed(self.weights):
            x = inputs.pop()
            x.T @ dz
            if inputs:
                dz = dz @ w.T

    def comm_ms(self, since_ns: int) -> float | None:
        return None

    def more(self) -> dict[str, float]:
        return {}


def serve(rank: Any, path: str) -> None:
    """Carry out what comes over the socket at `path`, until it ends."""
    done = 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        _say(sock, {"rank": rank.rank, "version": rank.version, "pid": os.getpid()})
        for line in sock.makefile("r"):
            order = json.loads(line)
            if "rows" in order:
                answer = epoch(rank, order["rows"], seed=done)
                done += 1
            else:
                answer = timed(rank, range(done, done + order["steps"]))
                done += order["steps"]
            if rank.rank == 0:
                _say(sock, answer | {"peak_mb": peak_mb()})


def timed(rank: Any, numbers: range) -> dict[str, Any]:
    """Train on these batches.  comm_ms, wait_ms: of all steps together, None if not known."""
    batches = [rank.batch(n) for n in numbers]
    times, comm, calls = [], [], []
    for x, y in batches:
        start = time.perf_counter_ns()
        rank.step(x, y)
        times.append((time.perf_counter_ns() - start) / 1e6)
        if isinstance(rank, MiniparRank):
            calls += rank.calls(start)
        else:
            comm.append(rank.comm_ms(start))
    answer = {"step_ms": times, "comm_ms": None if None in comm else sum(comm), "wait_ms": None}
    if isinstance(rank, MiniparRank):
        of_calls = np.array(calls, np.int64).reshape(-1, 2)
        answer["comm_ms"] = int((of_calls[:, 1] - of_calls[:, 0]).sum()) / 1e6
        answer["wait_ms"] = rank.waited_ns(of_calls) / 1e6
    return answer | rank.more()


def epoch(rank: Any, rows: int, seed: int) -> dict[str, Any]:
    """Train on all rows once: this rank on every ranks'th of them, in an order of this epoch's."""
    xs, ys = rank.work.batch(0)
    batch, mine = len(ys), len(range(rank.rank, rows, rank.ranks))
    x, y = np.resize(xs, (mine, *xs.shape[1:])), np.resize(ys, (mine, *ys.shape[1:]))
    start = time.perf_counter()
    order = np.random.default_rng(seed).permutation(mine)
    parts = [order[first : first + batch] for first in range(0, mine, batch)]
    for part in parts:
        rank.step(rank.given(x[part]), rank.given(y[part]))
    return {"steps": len(parts), "seconds": time.perf_counter() - start}


def serve_group(group: Group, model: str, strategy: str, path: str) -> None:
    if strategy in RULES:
        roles = Roles(group)
        if roles.is_server:
            serve_workload(roles, WORKLOADS[model], strategy)
            return
        worker = ServedRank(WORKLOADS[model], roles)
        serve(worker, path)
        worker.parallel.close()
        return
    if strategy in PIPELINES:
        kind: Any = PipelineRank
    else:
        kind = TensorRank if strategy in TENSOR else MiniparRank
    serve(kind(WORKLOADS[model], strategy, group), path)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the top of the file."""
    engine, model, path, *more = sys.argv[1:] if arguments is None else arguments
    work = WORKLOADS[model]
    if engine == "minipar":
        strategy, ranks = more
        processes = int(ranks) + (strategy in RULES)
        run(serve_group, processes, args=(model, strategy, path), backend="process")
    elif engine == "products":
        rank, ranks, _ = more
        serve(Products(work, int(rank), int(ranks)), path)
    else:
        rank, ranks, file = more
        serve(TorchRank(work, engine, int(rank), int(ranks), file), path)


def _say(sock: socket.socket, what: Mapping[str, Any]) -> None:
    sock.sendall(json.dumps(what).encode() + b"\n")
