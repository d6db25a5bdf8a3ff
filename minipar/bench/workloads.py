"""What `bench train` trains: the sizes that both engines share, and minipar's own step.

The tokens are random: the time of a step does not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from minipar.models import GPT, MLP
from minipar.ops import cross_entropy
from minipar.optim import AdamW
from minipar.random import Init, words


class Workload(NamedTuple):
    """kind "gpt" or "mlp"; sizes are the keyword arguments of that model; tokens [batch, block]."""

    kind: str
    sizes: Mapping[str, Any]
    batch: int
    block: int


def _gpt(d: int, heads: int, batch: int, block: int) -> Workload:
    sizes = {"vocab": 256, "block": block, "layers": 4, "d": d, "heads": heads}
    return Workload("gpt", MappingProxyType(sizes), batch, block)


WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        "gpt-256": _gpt(d=256, heads=8, batch=16, block=128),
        "gpt-128": _gpt(d=128, heads=4, batch=8, block=64),
        "mlp": Workload(
            "mlp",
            MappingProxyType({"vocab": 256, "context": 16, "d": 32, "hidden": (512, 512, 512)}),
            batch=16,
            block=64,
        ),
    }
)


def tokens(work: Workload, step: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y [batch, block], the same for every engine."""
    drawn = words(0, "bench", step, 0, work.batch * (work.block + 1)) % np.uint64(256)
    idx = drawn.astype(np.int64).reshape(work.batch, work.block + 1)
    return idx[:, :-1], idx[:, 1:]


class MiniparSteps:
    """A model and its optimizer; step(n) trains on batch n and returns the loss."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.model = (GPT if work.kind == "gpt" else MLP)(Init(), **work.sizes)
        self.optimizer = AdamW(self.model.named_parameters(), lr=1e-3)

    def step(self, n: int) -> float:
        x, y = tokens(self.work, n)
        self.optimizer.zero_grad()
        loss = cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()
