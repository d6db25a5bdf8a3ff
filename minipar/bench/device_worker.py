"""One engine on a GPU, in a process of its own: times steps, prints one line of JSON, and ends.

    echo | python -m minipar.bench.device_worker minipar gpt-124m bfloat16 10

Not meant to be called by hand: `bench_device` starts the workers together, and gives each its line
of input when it has the GPU for itself; until then a worker loads its libraries and makes its
model. Kernels are counted by CUPTI, which sees those of every library in the process;
`torch.profiler` is the way to it, for minipar's steps, too, where torch is installed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

from minipar.bench.workloads import ON_DEVICE, Workload
from minipar.device import modules_of
from minipar.parallel.mixed import MixedPrecision
from minipar.random import Draw, Init

WARM_UP = 3
MB = 2**20


class MiniparDeviceSteps:
    """A model and its optimizer on the GPU; step(x, y) trains on a batch and returns the loss."""

    def __init__(self, work: Workload, precision: str) -> None:
        self.work, self.precision, self.xp = work, precision, modules_of("cuda")
        self.model: Any = work.model(Init(xp=self.xp), **work.sizes)

    def begin(self) -> None:
        """Take the memory."""
        make: Any = self.work.optimizer
        if self.precision == "bfloat16":  # otherwise CUPY_TF32 is in the environment
            make = MixedPrecision(self.model, self.precision).optimizer(make)
        self.optimizer = make(self.model.named_parameters())

    def step(self, x: Any, y: Any) -> float:
        draw = Draw(0, self.optimizer.steps, range(len(y)))
        self.optimizer.zero_grad()
        loss = self.work.loss(self.model(x, draw), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def memory(self) -> dict[str, float]:
        """MB that the pool has taken, at the most, and what CUDA's own libraries have not."""
        return {"reserved_mb": self.xp.get_default_memory_pool().total_bytes() / MB}

    def versions(self) -> dict[str, str]:
        properties = self.xp.cuda.runtime.getDeviceProperties(0)
        return {"cupy": self.xp.__version__, "device": properties["name"].decode()}


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print what was found."""
    name, model, precision, count = sys.argv[1:] if arguments is None else arguments
    work = ON_DEVICE[model]
    steps = engine(name, work, precision)
    if not sys.stdin.readline():  # nobody waits any more
        return
    steps.begin()
    losses = [steps.step(*work.batch(n)) for n in range(WARM_UP)]
    times = []
    for n in range(WARM_UP, WARM_UP + int(count)):
        batch = work.batch(n)
        start = time.perf_counter()
        losses.append(steps.step(*batch))
        times.append((time.perf_counter() - start) * 1e3)
    found = {
        "step_ms": statistics.median(times),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        **steps.memory(),
        **steps.versions(),
        **launches(steps, work.batch(0)),
    }
    print(json.dumps(found), flush=True)


def engine(name: str, work: Workload, precision: str) -> Any:
    """What has begin(), step(x, y) -> loss, memory() and versions()."""
    if name == "minipar":
        return MiniparDeviceSteps(work, precision)
    from minipar.bench.torch_device import TorchDeviceSteps

    return TorchDeviceSteps(work, precision)


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
