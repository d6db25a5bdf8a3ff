"""One engine in a process of its own: reads how many steps to time, prints their milliseconds.

    python -m minipar.bench.worker minipar gpt-256 1

Each line of input is a number of steps; each line of output is JSON. Not meant to be called by
hand: `bench_train` starts one worker for each engine and asks them in turn. Batches are made before
the clock starts.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minipar.bench.workloads import WORKLOADS, MiniparSteps, Workload
from minipar.bench.writing import Writing


def main(arguments: list[str] | None = None) -> None:
    """Answer each number on stdin with the times of so many steps; the rest is in train.py."""
    name, model, threads = sys.argv[1:] if arguments is None else arguments
    build = engine(name)
    base_mb = peak_mb()
    steps = build(WORKLOADS[model], int(threads))
    n = 0
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            times.append(_timed(steps, n))
            n += 1
        answer = {"step_ms": times, "base_mb": base_mb, "peak_mb": peak_mb()}
        print(json.dumps(answer), flush=True)


def engine(name: str) -> Callable[[Workload, int], Any]:
    """Makes of a workload and a number of threads what has batch(n) -> (x, y), step(x, y) -> loss.

    The engine's libraries are loaded here, so that their memory can be told from the model's.
    """
    if name == "minipar":
        return lambda work, threads: MiniparSteps(work)  # its threads are in the environment
    if name in ("cached", "uncached"):
        return lambda work, threads: Writing(work, name == "cached")
    from minipar.bench.torch_peer import TorchSteps, TorchWriting

    return TorchWriting if name == "torch-cached" else TorchSteps


def _timed(steps: Any, n: int) -> float:
    """The milliseconds of one step."""
    x, y = steps.batch(n)
    start = time.perf_counter()
    steps.step(x, y)
    return (time.perf_counter() - start) * 1e3


def peak_mb() -> float:
    """The most memory that this process ever had, in MB; nan where there is no way to ask.

    All of it: the interpreter and the libraries, the model, its state, and what a step needs.
    """
    try:  # not by getrusage, if possible: that counts in what the process was forked from
        status = Path("/proc/self/status").read_text()
        return float(status.split("VmHWM:")[1].split()[0]) / 2**10
    except (OSError, IndexError):
        return _peak_mb_of_rusage()


def _peak_mb_of_rusage() -> float:
    try:
        import resource  # not on Windows
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
