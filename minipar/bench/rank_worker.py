"""One rank of a parallel job: it waits for an order, trains some steps, and answers.

    order   {"steps": 10}
    answer  {"step_ms": [8.1, ...], "comm_ms": 3.2, "peak_mb": 61.0}         only rank 0 answers

    python -m minipar.bench.rank_worker minipar mlp SOCKET bucketed 2       a job of 2 ranks
    python -m minipar.bench.rank_worker torch mlp SOCKET RANK 2 FILE        a rank of such a job

Not meant to be called by hand: `bench_ranks` starts the jobs. Orders come over a socket of its own
to each rank, as in comm_worker.py. Batches are made before the clock starts.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from minipar import __version__
from minipar.bench.pipeline_rank import PIPELINES, PipelineRank
from minipar.bench.worker import peak_mb
from minipar.bench.workloads import WORKLOADS, Workload
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.events import EVERYBODY, last
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.tensor_layers import TensorKit
from minipar.parallel.tensor_strategy import TensorParallel
from minipar.random import Draw, Init

STRATEGIES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"dp": DataParallel, "bucketed": BucketedDataParallel, "overlapped": OverlappedDataParallel}
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
        self.work, self.group, self.rank = work, group, group.rank
        self.model = work.model(Init(), **work.sizes)
        self.parallel = STRATEGIES[strategy](self.model, group, work.optimizer)

    def batch(self, n: int) -> Any:
        return self.work.batch(n * self.group.size + self.rank)

    def step(self, x: Any, y: np.ndarray) -> float:
        first = self.first_row(len(y))
        draw = Draw(0, self.parallel.steps, range(first, first + len(y)))
        self.parallel.zero_grad()
        loss = self.work.loss(self.model(x, draw), y)
        loss.backward()
        self.parallel.sync_gradients(len(y))
        self.parallel.step()
        return loss.item()

    def first_row(self, rows: int) -> int:
        return self.rank * rows

    def comm_ms(self, since_ns: int) -> float | None:
        """The milliseconds in calls of the group; `last` keeps more than those of a step."""
        calls = (e for e in last() if e.peer == EVERYBODY and e.begin >= since_ns)
        return sum(call.end - call.begin for call in calls) / 1e6

    def more(self) -> dict[str, float]:
        """What else there is to answer."""
        return {}


class TensorRank(MiniparRank):
    """A rank that has a part of each matrix. All ranks train on one batch, the same."""

    def __init__(self, work: Workload, strategy: str, group: Group) -> None:
        kit = TensorKit(group, **TENSOR[strategy])
        self.group, self.rank = group, group.rank
        model: Any = work.model(Init(), **work.sizes, kit=kit)
        self.model, self.work = model, work._replace(loss=model.output.loss)
        self.parallel = TensorParallel(self.model, group, work.optimizer)

    def batch(self, n: int) -> Any:
        return self.work.batch(n)

    def first_row(self, rows: int) -> int:
        return 0


class TorchRank:
    """A rank of torch's DistributedDataParallel on gloo, as it is by default."""

    def __init__(self, work: Workload, rank: int, ranks: int, file: str) -> None:
        import torch
        import torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel

        from minipar.bench.torch_peer import TorchSteps

        warnings.simplefilter("ignore", FutureWarning)
        self.rank, self.ranks, self.version = rank, ranks, f"torch {torch.__version__}"
        dist.init_process_group(
            "gloo", store=dist.FileStore(file, ranks), rank=rank, world_size=ranks
        )
        self.steps = TorchSteps(work, 1)
        self.steps.model = DistributedDataParallel(self.steps.model)

    def batch(self, n: int) -> Any:
        return self.steps.batch(n * self.ranks + self.rank)

    def step(self, x: Any, y: Any) -> float:
        return self.steps.step(x, y)

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
            steps = json.loads(line)["steps"]
            answer = timed(rank, range(done, done + steps))
            done += steps
            if rank.rank == 0:
                _say(sock, answer)


def timed(rank: Any, numbers: range) -> dict[str, Any]:
    """Train on these batches.  comm_ms: of all steps together, None if it is not known."""
    batches = [rank.batch(n) for n in numbers]
    times, comm = [], []
    for x, y in batches:
        start = time.perf_counter_ns()
        rank.step(x, y)
        times.append((time.perf_counter_ns() - start) / 1e6)
        comm.append(rank.comm_ms(start))
    return {
        "step_ms": times,
        "comm_ms": None if None in comm else sum(comm),
        "peak_mb": peak_mb(),
        **rank.more(),
    }


def serve_group(group: Group, model: str, strategy: str, path: str) -> None:
    if strategy in PIPELINES:
        kind: Any = PipelineRank
    else:
        kind = TensorRank if strategy in TENSOR else MiniparRank
    serve(kind(WORKLOADS[model], strategy, group), path)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the top of the file."""
    engine, model, path, *more = sys.argv[1:] if arguments is None else arguments
    if engine == "torch":
        rank, ranks, file = more
        serve(TorchRank(WORKLOADS[model], int(rank), int(ranks), file), path)
    else:
        strategy, ranks = more
        run(serve_group, int(ranks), args=(model, strategy, path), backend="process")


def _say(sock: socket.socket, what: Mapping[str, Any]) -> None:
    sock.sendall(json.dumps(what).encode() + b"\n")
