"""How long a training step takes on N ranks, beside one rank, and torch's on gloo.

Every contender is a job of N processes with one thread each: minipar with a strategy, torch (DDP,
ZeroRedundancyOptimizer, FSDP), or nothing but the matrix products, each rank for itself. All jobs
stay alive and are asked in turn, so that a machine that gets slower for a while gets slower for all
of them. In data parallel, sharded or not, each rank has a whole batch of the workload, another one.
In tensor parallel all ranks have one batch together, and so have the stages of a pipeline, in
micro-batches; `alone` is one process with that batch. With a parameter server N ranks are workers,
and the server is a process more.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from minipar.bench.comm_peers import Contender, Missing, python_with
from minipar.bench.pipeline_rank import PIPELINES
from minipar.bench.rank_worker import STRATEGIES, TENSOR
from minipar.bench.server_rank import RULES
from minipar.bench.train import models
from minipar.bench.workloads import WORKLOADS, ReluMLP
from minipar.comm.environment import python_command
from minipar.errors import UsageError

WORKER = "minipar.bench.rank_worker"
ALONE = "alone"
RATIOS = ("ratio", "alone_ratio", "simulated")
TEN_STEPS = MappingProxyType({"steps": 10})
AGAINST = MappingProxyType(  # engine and strategy, as they are in a row
    {
        "torch": ("torch", "ddp"),
        "torch-zero1": ("torch", "zero1"),
        "torch-fsdp": ("torch", "fsdp"),
        "products": ("numpy", "products"),
    }
)


def bench_ranks(
    model: str = "mlp",
    strategies: Sequence[str] = ("bucketed",),
    against: Sequence[str] = ("torch",),
    ranks: int = 2,
    rounds: int = 5,
    order: Mapping[str, int] = TEN_STEPS,
) -> list[dict[str, Any]]:
    """Time `rounds` times so many training steps of each strategy and each peer, in turn.

    order: {"steps": 10}, or {"rows": 59500}: epochs of so many rows, batches drawn as they go.

    Returns a row per contender: engine, model, strategy, ranks, threads, step_ms (the median of all
    steps, on rank 0), epoch_s (the median of all epochs, None without), comm_share (of the time of
    these steps, what calls of the group took; of a pipeline, what a stage waited; None for peers
    and epochs), wait_share (what of it was waiting until all ranks had come, also None for
    pipelines), peak_mb (of rank 0's process), ratio and alone_ratio (step_ms by that of torch's
    DDP, and by that of the strategy "alone"), simulated (of a pipeline: forward and backward by
    what the simulator gives for the times of its actions), note (why there are no numbers).
    """
    models([model])
    if strange := set(against) - set(AGAINST):
        raise UsageError(f"There is no {sorted(strange)} to bench; use {', '.join(AGAINST)}.")
    if "products" in against and WORKLOADS[model].model is not ReluMLP:
        raise UsageError("Matrix products alone are known only of the models mlp and shallow.")
    check(strategies)
    if "rows" in order and (whole := set(strategies) - {*STRATEGIES, ALONE}):
        raise UsageError(f"Epochs are timed of data parallel only, not of {sorted(whole)}.")
    kinds = [("minipar", "minipar", strategy) for strategy in strategies]
    kinds += [(kind, *AGAINST[kind]) for kind in against]
    rows = [_row(engine, model, strategy, ranks) for _, engine, strategy in kinds]
    with tempfile.TemporaryDirectory() as folder:
        contenders: list[tuple[dict[str, Any], Contender]] = []
        try:
            for (kind, *_), row in zip(kinds, rows):
                try:
                    contenders.append((row, _start(kind, row, Path(folder))))
                except Missing as missing:
                    row["note"] = str(missing)
            _time_in_turn(contenders, rounds, dict(order))
        finally:
            for _, contender in contenders:
                contender.close()
    for row in rows:
        row["ratio"] = _by(row, rows, "ddp")
        row["alone_ratio"] = _by(row, rows, ALONE)
    return rows


def check(strategies: Sequence[str]) -> None:
    """Raises: UsageError if there is one that cannot be timed."""
    known = [*STRATEGIES, *TENSOR, *PIPELINES, *RULES, ALONE]
    if unknown := set(strategies) - set(known):
        raise UsageError(
            f"There is no strategy {sorted(unknown)} to bench; use {', '.join(known)}."
        )


def _by(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], strategy: str) -> float | None:
    """The row's time by that of another strategy, if both are there."""
    other = next((r["step_ms"] for r in rows if r["strategy"] == strategy), None)
    return row["step_ms"] / other if other and row["step_ms"] else None


def _row(engine: str, model: str, strategy: str, ranks: int) -> dict[str, Any]:
    ranks = 1 if strategy == ALONE else ranks
    row: dict[str, Any] = {"engine": engine, "model": model, "strategy": strategy, "ranks": ranks}
    measured = ("step_ms", "epoch_s", "comm_share", "wait_share", "peak_mb")
    nothing = (*measured, *RATIOS, "note")
    return {**row, "threads": 1, **dict.fromkeys(nothing)}


def _start(kind: str, row: Mapping[str, Any], folder: Path) -> Contender:
    engine, model, strategy, ranks = (row[n] for n in ("engine", "model", "strategy", "ranks"))
    name = f"{engine}-{strategy}"
    if engine == "minipar":
        name_there = "dp" if strategy == ALONE else strategy
        jobs = [python_command(WORKER, kind, model, "SOCKET", name_there, str(ranks))]
    else:
        if engine == "torch":
            python_with("torch", [sys.executable])
        last = [str(ranks), str(folder / f"{name}.store")]
        jobs = [python_command(WORKER, kind, model, "SOCKET", str(r), *last) for r in range(ranks)]
    return Contender(name, ranks, jobs, folder)


def _time_in_turn(
    contenders: Sequence[tuple[dict[str, Any], Contender]], rounds: int, order: Mapping[str, int]
) -> None:
    for _, contender in contenders:
        contender.order({"steps": 3}, "warming up")
    found: list[list[dict[str, Any]]] = [[] for _ in contenders]
    for _ in range(rounds):
        for answers, (_, contender) in zip(found, contenders):
            answers.append(contender.order(order, "training"))
    for answers, (row, _) in zip(found, contenders):
        row["peak_mb"] = answers[-1]["peak_mb"]
        if "rows" in order:
            row["epoch_s"] = statistics.median(answer["seconds"] for answer in answers)
            row["step_ms"] = row["epoch_s"] * 1e3 / answers[0]["steps"]
            continue
        times = [ms for answer in answers for ms in answer["step_ms"]]
        row["step_ms"] = statistics.median(times)
        if "simulated" in answers[0]:
            row["simulated"] = statistics.median(answer["simulated"] for answer in answers)
        for share, part in (("comm_share", "comm_ms"), ("wait_share", "wait_ms")):
            if answers[0].get(part) is not None:
                row[share] = sum(answer[part] for answer in answers) / sum(times)


HEAD = f"{'engine':9s}{'model':10s}{'strategy':12s}{'ranks':>5s}" + (
    f"{'ms/step':>10s}{'s/epoch':>9s}{'× torch':>9s}{'× alone':>9s}{'× simul.':>9s}"
    f"{'comm':>7s}{'waits':>7s}{'MB':>7s}"
)


def line(row: Mapping[str, Any]) -> str:
    """A row for people, under HEAD."""
    start = f"{row['engine']:9s}{row['model']:10s}{row['strategy']:12s}{row['ranks']:5d}"
    if row["note"]:
        return f"{start}  {row['note']}"
    epoch = "" if row["epoch_s"] is None else f"{row['epoch_s']:.2f}"
    by = "".join(f"{'' if row[n] is None else f'{row[n]:.2f}':>9s}" for n in RATIOS)
    comm, wait = ("" if row[n] is None else f"{row[n]:.1%}" for n in ("comm_share", "wait_share"))
    return f"{start}{row['step_ms']:10.2f}{epoch:>9s}{by}{comm:>7s}{wait:>7s}{row['peak_mb']:7.0f}"
