"""How long a training step takes on N ranks, beside one rank, and torch's DDP on gloo.

Every contender is a job of N processes with one thread each: minipar with a strategy, or torch. All
jobs stay alive and are asked in turn, so that a machine that gets slower for a while gets slower
for all of them. In data parallel each rank has a whole batch of the workload, another one. In
tensor parallel all ranks have one batch together, and so have the stages of a pipeline, in
micro-batches; `alone` is one process with that batch.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minipar.bench.comm_peers import Contender, Missing, python_with
from minipar.bench.pipeline_rank import PIPELINES
from minipar.bench.rank_worker import STRATEGIES, TENSOR
from minipar.bench.train import models
from minipar.comm.environment import python_command
from minipar.errors import UsageError

WORKER = "minipar.bench.rank_worker"
ALONE = "alone"


def bench_ranks(
    model: str = "mlp",
    strategies: Sequence[str] = ("bucketed",),
    against: Sequence[str] = ("torch",),
    ranks: int = 2,
    rounds: int = 5,
    steps: int = 10,
) -> list[dict[str, Any]]:
    """Time `rounds` times `steps` training steps of each strategy and of torch, in turn.

    Returns a row per contender: engine, model, strategy, ranks, threads, step_ms (the median of all
    steps, on rank 0), comm_share (of the time of these steps, what calls of the group took, None
    for torch; of a pipeline, what a stage waited), peak_mb (of rank 0's process), ratio and
    alone_ratio (step_ms by torch's, and by that of the strategy "alone"), simulated (of a pipeline:
    forward and backward by what the simulator gives for the times of its actions), note (why there
    are no numbers).
    """
    models([model])
    if unknown := set(strategies) - {*STRATEGIES, *TENSOR, *PIPELINES, ALONE}:
        known = ", ".join([*STRATEGIES, *TENSOR, *PIPELINES, ALONE])
        raise UsageError(f"There is no strategy {sorted(unknown)} to bench; use {known}.")
    rows = [_row("minipar", model, strategy, ranks) for strategy in strategies]
    rows += [_row(engine, model, "ddp", ranks) for engine in against]
    with tempfile.TemporaryDirectory() as folder:
        contenders: list[tuple[dict[str, Any], Contender]] = []
        try:
            for row in rows:
                try:
                    contenders.append((row, _start(row, Path(folder))))
                except Missing as missing:
                    row["note"] = str(missing)
            _time_in_turn(contenders, rounds, steps)
        finally:
            for _, contender in contenders:
                contender.close()
    for row in rows:
        row["ratio"] = _by(row, rows, "ddp")
        row["alone_ratio"] = _by(row, rows, ALONE)
    return rows


def _by(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], strategy: str) -> float | None:
    """The row's time by that of another strategy, if both are there."""
    other = next((r["step_ms"] for r in rows if r["strategy"] == strategy), None)
    return row["step_ms"] / other if other and row["step_ms"] else None


def _row(engine: str, model: str, strategy: str, ranks: int) -> dict[str, Any]:
    ranks = 1 if strategy == ALONE else ranks
    row: dict[str, Any] = {"engine": engine, "model": model, "strategy": strategy, "ranks": ranks}
    nothing = ("step_ms", "comm_share", "peak_mb", "ratio", "alone_ratio", "simulated", "note")
    return {**row, "threads": 1, **dict.fromkeys(nothing)}


def _start(row: Mapping[str, Any], folder: Path) -> Contender:
    engine, model, strategy, ranks = (row[n] for n in ("engine", "model", "strategy", "ranks"))
    name = f"{engine}-{strategy}"
    if engine == "torch":
        python_with("torch", [sys.executable])
        last = [str(ranks), str(folder / "gloo.store")]
        jobs = [
            python_command(WORKER, engine, model, "SOCKET", str(r), *last) for r in range(ranks)
        ]
    else:
        name_there = "dp" if strategy == ALONE else strategy
        jobs = [python_command(WORKER, engine, model, "SOCKET", name_there, str(ranks))]
    return Contender(name, ranks, jobs, folder)


def _time_in_turn(
    contenders: Sequence[tuple[dict[str, Any], Contender]], rounds: int, steps: int
) -> None:
    for _, contender in contenders:
        contender.order({"steps": 3}, "warming up")
    found: list[list[dict[str, Any]]] = [[] for _ in contenders]
    for _ in range(rounds):
        for answers, (_, contender) in zip(found, contenders):
            answers.append(contender.order({"steps": steps}, "a training step"))
    for answers, (row, _) in zip(found, contenders):
        times = [ms for answer in answers for ms in answer["step_ms"]]
        row["step_ms"], row["peak_mb"] = statistics.median(times), answers[-1]["peak_mb"]
        if "simulated" in answers[0]:
            row["simulated"] = statistics.median(answer["simulated"] for answer in answers)
        if answers[0]["comm_ms"] is not None:
            row["comm_share"] = sum(answer["comm_ms"] for answer in answers) / sum(times)


RATIOS = ("ratio", "alone_ratio", "simulated")
HEAD = f"{'engine':9s}{'model':10s}{'strategy':12s}{'ranks':>5s}" + (
    f"{'ms/step':>10s}{'× torch':>9s}{'× alone':>9s}{'× simul.':>9s}{'comm':>7s}{'MB':>7s}"
)


def line(row: Mapping[str, Any]) -> str:
    """A row for people, under HEAD."""
    start = f"{row['engine']:9s}{row['model']:10s}{row['strategy']:12s}{row['ranks']:5d}"
    if row["note"]:
        return f"{start}  {row['note']}"
    ratios = ("" if row[n] is None else f"{row[n]:.2f}" for n in RATIOS)
    share = "" if row["comm_share"] is None else f"{row['comm_share']:.1%}"
    by = "".join(f"{ratio:>9s}" for ratio in ratios)
    return f"{start}{row['step_ms']:10.2f}{by}{share:>7s}{row['peak_mb']:7.0f}"
