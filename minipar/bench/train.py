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
    peak_mb (of the whole process), base_mb (of it when the libraries were loaded and nothing else),
    ratio and memory_ratio (its step_ms and peak_mb by torch's, None without torch), note (why there
    are no numbers).
    """
    models([model])
    if unknown := set(engines) - set(ENGINES):
        raise UsageError(f"There is no engine {sorted(unknown)}; use {', '.join(ENGINES)}.")
    if min(threads, rounds, steps) < 1:
        raise UsageError("bench train needs at least 1 thread, 1 round and 1 step.")
    rows = {e: _row(e, model, threads) for e in engines}
    missing = importlib.util.find_spec("torch") is None
    if missing and "torch" in rows:
        rows["torch"]["note"] = "torch is not installed"
    workers = {e: start(e, model, threads) for e in engines if not (missing and e == "torch")}
    try:
        times = time_in_turn(workers, rows, rounds, steps)
    finally:
        for worker in workers.values():
            worker.communicate()  # the end of its input ends it
    for e in workers:
        rows[e]["step_ms"] = statistics.median(times[e])
    if "torch" in workers:
        for e in workers:
            rows[e]["ratio"] = rows[e]["step_ms"] / rows["torch"]["step_ms"]
            rows[e]["memory_ratio"] = rows[e]["peak_mb"] / rows["torch"]["peak_mb"]
    return list(rows.values())


def models(names: Sequence[str]) -> Sequence[str]:
    """The names, if all of them are known; every name there is for "all"."""
    if list(names) == ["all"]:
        return tuple(WORKLOADS)
    if unknown := [name for name in names if name not in WORKLOADS]:
        raise UsageError(f"There is no model {unknown[0]!r} to bench; use {', '.join(WORKLOADS)}.")
    return names


def time_in_turn(
    workers: Mapping[str, subprocess.Popen[str]],
    rows: dict[str, dict[str, Any]],
    rounds: int,
    steps: int,
) -> dict[str, list[float]]:
    """The milliseconds of all steps, by engine; the memory goes into the rows."""
    times: dict[str, list[float]] = {e: [] for e in workers}
    for e, worker in workers.items():
        ask(e, worker, 2)  # warm up
    for _ in range(rounds):
        for e, worker in workers.items():
            answer = ask(e, worker, steps)
            times[e] += answer["step_ms"]
            rows[e] |= {name: answer[name] for name in ("peak_mb", "base_mb")}
    return times


def _row(engine: str, model: str, threads: int) -> dict[str, Any]:
    nothing = dict.fromkeys(("step_ms", "peak_mb", "base_mb", "ratio", "memory_ratio", "note"))
    return {"engine": engine, "model": model, "ranks": 1, "threads": threads, **nothing}


def start(engine: str, model: str, threads: int) -> subprocess.Popen[str]:
    environment = rank_environment(1) | dict.fromkeys(THREAD_VARIABLES, str(threads))
    command = python_command("minipar.bench.worker", engine, model, str(threads))
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


def ask(engine: str, worker: subprocess.Popen[str], steps: int) -> dict[str, Any]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(f"{steps}\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise UsageError(f"bench train: the {engine} process ended early; its error is above.")
    return json.loads(line)


HEAD = f"{'engine':9s}{'model':10s}{'threads':>8s}{'ms/step':>10s}{'× torch':>9s}" + (
    f"{'MB':>7s}{'× torch':>9s}"
)


def line(row: Mapping[str, Any]) -> str:
    """A row for people, under HEAD; the ratios travel better than the milliseconds."""
    start = f"{row['engine']:9s}{row['model']:10s}{row['threads']:8d}"
    if row["note"]:
        return f"{start}  {row['note']}"
    time, memory = ("" if row[r] is None else f"{row[r]:.2f}" for r in ("ratio", "memory_ratio"))
    return f"{start}{row['step_ms']:10.1f}{time:>9s}{row['peak_mb']:7.0f}{memory:>9s}"
