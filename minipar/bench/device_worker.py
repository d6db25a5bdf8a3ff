"""One engine on a GPU, in a process of its own: reads what to time, prints what it found.

    echo gpt-124m bfloat16 10 | python -m minipar.bench.device_worker minipar

Each line of input is a model, a precision and a number of steps; each line of output is JSON. Not
meant to be called by hand: `bench_device` starts the engines together, and asks one after the
other, so that each has the GPU for itself. Kernels are counted by CUPTI, which sees those of every
library in the process; `torch.profiler` is the way to it, for minipar's steps, too, where torch is
installed.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from minipar import cuda
from minipar.array import Array
from minipar.bench.workloads import ON_DEVICE, Workload
from minipar.device import modules_of
from minipar.errors import said
from minipar.parallel.mixed import MixedPrecision
from minipar.random import Draw, Init

WARM_UP = 3
MB = 2**20


class QuickInit(Init):
    """Draws from NumPy's generator: in a second, where the numbers do not matter."""

    def normal(self, parameter: str, shape: tuple[int, ...], std: float) -> Array:
        drawn = np.random.default_rng(0).standard_normal(shape, self.dtype)
        return self.xp.asarray(drawn * self.dtype(std))


class MiniparDeviceSteps:
    """A model and its optimizer on the GPU; step(x, y) trains on a batch and returns the loss."""

    def __init__(self, work: Workload, precision: str) -> None:
        self.work, self.xp = work, modules_of("cuda")
        self.pool = self.xp.get_default_memory_pool()
        self.pool.free_all_blocks()
        cuda.use_tf32(precision == "tf32")
        self.model: Any = work.model(QuickInit(xp=self.xp), **work.sizes)
        make: Any = work.optimizer
        if precision == "bfloat16":
            make = MixedPrecision(self.model, precision).optimizer(make)
        self.optimizer = make(self.model.named_parameters())

    def step(self, x: Any, y: Any) -> float:
        draw = Draw(0, self.optimizer.steps, range(len(y)))
        self.optimizer.zero_grad()
        loss = self.work.loss(self.model(x, draw), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def memory(self) -> dict[str, float]:
        """MB that the pool has taken: at the most, for it gives nothing back by itself."""
        return {"reserved_mb": self.pool.total_bytes() / MB}

    def versions(self) -> dict[str, str]:
        properties = self.xp.cuda.runtime.getDeviceProperties(0)
        return {"cupy": self.xp.__version__, "device": properties["name"].decode()}


def main(arguments: list[str] | None = None) -> None:
    """Measure what stdin asks for."""
    (name,) = sys.argv[1:] if arguments is None else arguments
    make = engine(name)
    for line in sys.stdin:
        model, precision, count = line.split()
        try:
            found = measured(make, ON_DEVICE[model], precision, int(count))
        except Exception as error:  # of any kind: what else is asked for can be measured
            found = {"note": f"{type(error).__name__}: {said(error)}"}
        gc.collect()
        print(json.dumps(found), flush=True)


def measured(make: Any, work: Workload, precision: str, count: int) -> dict[str, Any]:
    """The fields of a row that a worker knows."""
    steps = make(work, precision)
    losses = [steps.step(*work.batch(n)) for n in range(WARM_UP)]
    times = []
    for n in range(WARM_UP, WARM_UP + count):
        batch = work.batch(n)
        start = time.perf_counter()
        losses.append(steps.step(*batch))
        times.append((time.perf_counter() - start) * 1e3)
    return {
        "note": None,
        "step_ms": statistics.median(times),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        **steps.memory(),
        **steps.versions(),
        **launches(steps, work.batch(0)),
    }


def engine(name: str) -> Any:
    """Makes of a workload and a precision what has step(x, y) -> loss, memory() and versions().

    The engine's libraries are loaded here.
    """
    if name == "minipar":
        return MiniparDeviceSteps
    from minipar.bench.torch_device import TorchDeviceSteps

    return TorchDeviceSteps


def launches(steps: Any, batch: Any) -> dict[str, Any]:
    """How many kernels and copies a step starts, and for how long they keep the GPU busy."""
    try:
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        return {"launches": None, "busy_ms": None}
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        steps.step(*batch)
    events = [e for e in profiler.events() or () if e.device_type.name == "CUDA"]
    return {"launches": len(events), "busy_ms": sum(e.device_time for e in events) / 1e3}


if __name__ == "__main__":
    main()
