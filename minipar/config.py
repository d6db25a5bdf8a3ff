"""What a training run is: every number that decides its result, in one place.

A run folder keeps its `Config` as config.json, which is what `--resume` reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from minipar.errors import CheckpointError, UsageError
from minipar.models import GPT, MLP
from minipar.nn import Module
from minipar.random import Init


@dataclass(frozen=True)
class Config:
    """Sizes are in bytes of text (a token is a byte); `batch` is the global batch."""

    model: str = "gpt"
    dp: int = 1  # data-parallel replicas, one rank each
    backend: str = "process"
    data: str | None = None  # a text file or folder; None: the standard library's sources
    steps: int = 1500
    batch: int = 16
    block: int = 64
    layers: int = 4
    d: int = 128
    heads: int = 4
    dropout: float = 0.0
    lr: float = 3e-3
    warmup: int = 100
    min_lr: float = 3e-5
    weight_decay: float = 0.1
    clip: float = 1.0
    dtype: str = "float32"
    seed: int = 0
    save_every: int = 250
    eval_every: int = 250
    eval_batches: int = 100
    timeout_s: float = 300.0

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Config:
        """Raises: CheckpointError if that is no config of ours."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is not the config.json of a run: {error}") from None


def _gpt(c: Config, init: Init) -> Module:
    return GPT(init, 256, c.block, c.layers, c.d, c.heads, c.dropout)


def _mlp(c: Config, init: Init) -> Module:
    return MLP(init, 256, min(16, c.block), 32, (2 * c.d,) * max(1, c.layers // 2), c.dropout)


# What `--resume` cannot change, because a checkpoint fits only one of them.
FIXED = ("model", "block", "layers", "d", "heads", "dtype")

MODELS: MappingProxyType[str, Callable[[Config, Init], Module]] = MappingProxyType(
    {"gpt": _gpt, "mlp": _mlp}
)


def build_model(config: Config) -> Module:
    """The model of the config, its weights drawn from (seed, name)."""
    return MODELS[config.model](config, Init(config.seed, np.dtype(config.dtype)))


def check(config: Config) -> None:
    """Raises: UsageError with one sentence about the first thing that cannot work."""
    c = config
    if c.model not in MODELS:
        raise UsageError(f"there is no model {c.model!r}; there are {', '.join(MODELS)}.")
    if c.dtype not in ("float32", "float64"):
        raise UsageError(f"--dtype is float32 or float64, not {c.dtype!r}.")
    for name in ("dp", "steps", "batch", "block", "layers", "d", "heads", "eval_batches"):
        if getattr(c, name) < 1:
            raise UsageError(f"--{option(name)} must be at least 1.")
    if not 0 <= c.dropout < 1:
        raise UsageError(f"--dropout must be at least 0 and below 1, not {c.dropout}.")
    for name in ("lr", "clip", "timeout_s"):
        if not 0 < getattr(c, name) < math.inf:
            raise UsageError(f"--{option(name)} must be a number above 0, not {getattr(c, name)}.")
    for name in ("warmup", "weight_decay", "save_every", "eval_every", "min_lr", "seed"):
        if not getattr(c, name) >= 0:
            raise UsageError(f"--{option(name)} must be at least 0, not {getattr(c, name)}.")
    if c.min_lr > c.lr:
        raise UsageError(f"--min-lr {c.min_lr} is above --lr {c.lr}; make it smaller.")
    if c.model == "gpt" and c.d % c.heads:
        raise UsageError(f"--d {c.d} cannot be divided among {c.heads} heads; change one of them.")
    if c.batch % c.dp:
        less, more = c.batch // c.dp * c.dp, (c.batch // c.dp + 1) * c.dp
        raise UsageError(
            f"a batch of {c.batch} cannot be divided among {c.dp} ranks: "
            f"use --batch {f'{less} or ' if less else ''}{more}."
        )


def option(name: str) -> str:
    """The command line's word for a field."""
    return name.removesuffix("_s").replace("_", "-")


def option_types() -> dict[str, Any]:
    """Name -> type (int, float or str) of every field, for whoever builds a parser of them."""
    kinds = {"int": int, "float": float}
    return {f.name: kinds.get(str(f.type), str) for f in fields(Config)}
