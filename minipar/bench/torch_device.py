"""Training steps of the PyTorch twins on a GPU: eager, in TF32 or bfloat16.

    tf32             float32, products on tensor cores
    bfloat16         torch.autocast: float32 weights, which each product rounds anew
    bfloat16-pure    bfloat16 weights, and float32 masters in the optimizer: what minipar does

With torch_peer.py one of the two files that import torch.
"""

from __future__ import annotations

from typing import Any

import torch

from minipar.bench.torch_peer import TWINS
from minipar.bench.workloads import Workload

MB = 2**20


class TorchDeviceSteps:
    """A model and its optimizer; step(x, y) trains on a batch and returns the loss."""

    def __init__(self, work: Workload, precision: str) -> None:
        torch.cuda.init()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.backends.cuda.matmul.allow_tf32 = True
        self.twin, self.precision = TWINS[work.kind], precision
        with torch.device("cuda"):
            self.model: Any = self.twin.model(**work.sizes)
        self.masters: list[Any] = []
        if self.precision == "bfloat16-pure":
            self.masters = [p.detach().clone() for p in self.model.parameters()]
            self.model.bfloat16()
        self.optimizer = self.twin.optimizer(iter(self.masters or self.model.parameters()))

    def step(self, x: Any, y: Any) -> float:
        x, y = (torch.from_numpy(array.copy()).cuda(non_blocking=True) for array in (x, y))
        self.model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss = self.twin.loss(self.model(x), y)
        loss.backward()
        for master, p in zip(self.masters, self.model.parameters()):
            master.grad = p.grad.float()
        self.optimizer.step()
        with torch.no_grad():
            for master, p in zip(self.masters, self.model.parameters()):
                p.copy_(master)
        return loss.item()

    def memory(self) -> dict[str, float]:
        return {
            "reserved_mb": torch.cuda.max_memory_reserved() / MB,
            "allocated_mb": torch.cuda.max_memory_allocated() / MB,
        }

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__, "device": torch.cuda.get_device_name()}
