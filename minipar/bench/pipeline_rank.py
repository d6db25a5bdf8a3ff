"""A stage of a pipeline that `bench train` times, and how long its schedule should have taken.

What each action takes is measured in the run itself, without what it waited for: the medians on
each stage are given to the simulator (parallel/schedule_time.py), which knows of no messages, locks
or caches. So measured by simulated is what the executor costs beyond the bubble.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any

import numpy as np

from minipar import __version__
from minipar.bench.workloads import Workload
from minipar.comm.group import Group
from minipar.parallel.pipeline_strategy import PipelineParallel
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.schedule import named
from minipar.parallel.schedule_time import Times, simulate
from minipar.random import Draw, Init

PIPELINES = ("naive", "gpipe", "1f1b", "zero-bubble")
MICROS = 8
PHASES = "FBIW"


class PipelineRank:
    """Trains on batches that all stages have together, in MICROS micro-batches."""

    version = f"minipar {__version__}"

    def __init__(self, work: Workload, schedule: str, group: Group) -> None:
        self.work, self.group, self.rank, self.schedule = work, group, group.rank, schedule
        self.pipeline = Pipeline(work.model(Init(), **work.sizes), group, work.loss, schedule)
        self.parallel = PipelineParallel(self.pipeline, lambda named: work.optimizer(iter(named)))
        self.steps, self.waited = 0, 0
        self._forget()

    def _forget(self) -> None:
        self.times: list[float] = []  # of forward and backward, in each step
        self.took: dict[str, list[float]] = defaultdict(list)  # each action, by its phase

    def batch(self, n: int) -> Any:
        return self.work.batch(n)

    def step(self, x: Any, y: np.ndarray) -> float:
        draw = Draw(0, self.steps, range(len(y)))
        self.steps += 1
        self.parallel.zero_grad()
        begin = time.perf_counter_ns()
        loss = self.pipeline.train(micro_batches(x, y, draw, MICROS))
        self.times.append((time.perf_counter_ns() - begin) / 1e6)
        self._note()
        self.parallel.sync_gradients(len(y))
        self.parallel.step()
        return loss

    def _note(self) -> None:
        assert self.pipeline.last is not None
        spans = self.pipeline.last.spans
        for span in spans:
            ms = (span.end - span.begin - span.waited) / 1e6
            self.took[span.action.phase].append(ms)
        self.waited = sum(span.waited for span in spans)

    def comm_ms(self, since_ns: int) -> float | None:
        """The milliseconds in which this stage waited for others, the bubble among them."""
        return self.waited / 1e6

    def more(self) -> dict[str, float]:
        """simulated: forward and backward as measured, by what they should take.  Collective."""
        own = [statistics.median(self.took[phase] or [0.0]) for phase in PHASES]
        f, b, i, w = self.group.all_gather(np.array(own)).T
        backward, weight = np.where(b > 0, b, i + w), np.where(b > 0, b / 2, w)
        programs = named(self.schedule, self.group.size, MICROS)
        times = Times(f.tolist(), backward.tolist(), weight.tolist())
        measured, right = statistics.median(self.times), simulate(programs, times).length
        self._forget()
        return {"simulated": measured / right}
