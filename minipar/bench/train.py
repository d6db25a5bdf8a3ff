"""How long a training step takes, beside PyTorch on the same cores.

Every engine is a process of its own, with the same number of threads and the same malloc settings.
They stay alive and are asked in turn, so that a machine that gets slower for a while gets slower
for all of them: the ratio holds where the milliseconds do not.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from minipar.bench.workloads import WORKLOADS
from minipar.comm.environment import THREAD_VARIABLES, python_command, rank_environment
from minipar.errors import UsageError

ENGINES = ("minipar", "torch")


def bench_train(
    model: str = "gpt-256",
    engines: Sequence[str] = ENGINES,
    threads: int = 1,
    rounds: int = 5,
    steps: int = 3,
) -> list[dict[str, Any]]:
    """Time `rounds` times `steps` training steps of each engine, in turn.

    Returns a row per engine: engine, model, ranks, threads, step_ms (the median of all steps),
    peak_mb, ratio (its step_ms by torch's, None without torch), note (why there are no numbers).
    """
    if model not in WORKLOADS:
        raise UsageError(f"There is no model {model!r} to bench; use {', '.join(WORKLOADS)}.")
    if unknown := set(engines) - set(ENGINES):
        raise UsageError(f"There is no engine {sorted(unknown)}; use {', '.join(ENGINES)}.")
    if min(threads, rounds, steps) < 1:
        raise UsageError("bench train needs at least 1 thread, 1 round and 1 step.")
    rows = {e: _row(e, model, threads) for e in engines}
    missing = importlib.util.find_spec("torch") is None
    if missing and "torch" in rows:
        rows["torch"]["note"] = "torch is not installed"
    workers = {e: _start(e, model, threads) for e in engines if not (missing and e == "torch")}
    try:
        times = _time_in_turn(workers, rows, rounds, steps)
    finally:
        for worker in workers.values():
            worker.communicate()  # the end of its input ends it
    for e in workers:
        rows[e]["step_ms"] = statistics.median(times[e])
        if "torch" in workers:
            rows[e]["ratio"] = rows[e]["step_ms"] / statistics.median(times["torch"])
    return list(rows.values())


def _time_in_turn(
    workers: Mapping[str, subprocess.Popen[str]],
    rows: Mapping[str, dict[str, Any]],
    rounds: int,
    steps: int,
) -> dict[str, list[float]]:
    """The milliseconds of all steps, by engine; peak_mb goes into the rows."""
    times: dict[str, list[float]] = {e: [] for e in workers}
    for e, worker in workers.items():
        _ask(e, worker, 2)  # warm up
    for _ in range(rounds):
        for e, worker in workers.items():
            answer = _ask(e, worker, steps)
            times[e] += answer["step_ms"]
            rows[e]["peak_mb"] = answer["peak_mb"]
    return times


def _row(engine: str, model: str, threads: int) -> dict[str, Any]:
    nothing = dict.fromkeys(("step_ms", "peak_mb", "ratio", "note"))
    return {"engine": engine, "model": model, "ranks": 1, "threads": threads, **nothing}


def _start(engine: str, model: str, threads: int) -> subprocess.Popen[str]:
    environment = rank_environment(1) | dict.fromkeys(THREAD_VARIABLES, str(threads))
    command = python_command("minipar.bench.worker", engine, model, str(threads))
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


def _ask(engine: str, worker: subprocess.Popen[str], steps: int) -> dict[str, Any]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(f"{steps}\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise UsageError(f"bench train: the {engine} process ended early; its error is above.")
    return json.loads(line)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people; milliseconds are those of this machine now, the ratio travels better."""
    lines = [f"{'engine':10s}{'model':10s}{'threads':>8s}{'ms/step':>10s}{'× torch':>9s}{'MB':>7s}"]
    for row in rows:
        start = f"{row['engine']:10s}{row['model']:10s}{row['threads']:8d}"
        if row["note"]:
            lines.append(f"{start}  {row['note']}")
            continue
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(f"{start}{row['step_ms']:10.1f}{ratio:>9s}{row['peak_mb']:7.0f}")
    return "\n".join(lines)
