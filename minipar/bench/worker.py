"""One engine in a process of its own: reads how many steps to time, prints their milliseconds.

    python -m minipar.bench.worker minipar gpt-256 1

Each line of input is a number of steps; each line of output is JSON. Not meant to be called by
hand: `bench_train` starts one worker for each engine and asks them in turn.
"""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

from minipar.bench.workloads import WORKLOADS, MiniparSteps


def engine(name: str, model: str, threads: int) -> Any:
    """What has a step(n) -> loss."""
    work = WORKLOADS[model]
    if name == "minipar":
        return MiniparSteps(work)
    from minipar.bench.torch_peer import TorchSteps

    return TorchSteps(work, threads)


def peak_mb() -> float:
    """The most memory that this process ever had, in MB; nan where there is no way to ask."""
    try:
        import resource  # not on Windows
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main(arguments: list[str] | None = None) -> None:
    """Answer each number on stdin with the times of so many steps; the rest is in train.py."""
    arguments = sys.argv[1:] if arguments is None else arguments
    steps = engine(arguments[0], arguments[1], int(arguments[2]))
    n = 0
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            steps.step(n)
            times.append((time.perf_counter() - start) * 1e3)
            n += 1
        print(json.dumps({"step_ms": times, "peak_mb": peak_mb()}), flush=True)
