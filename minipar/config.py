"""What a training run is: every number that decides its result, in one place.

A run folder keeps its `Config` as config.json, which is what `--resume` reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from minipar.comm.host_memory import parsed_bytes
from minipar.errors import CheckpointError, UsageError


@dataclass(frozen=True)
class Config:
    """The defaults are those of gpt; a recipe may have its own. `batch` is the global batch."""

    model: str = "gpt"  # a name, or FILE.py:CLASS
    dp: int = 1  # data-parallel replicas
    pp: int = 1  # stages of a pipeline, in each replica
    tp: int = 1  # tensor-parallel ranks, in each stage
    backend: str = "process"
    share_gpu: bool = False  # of nccl: several ranks on one GPU
    data: str | None = None  # files of the user's; None: what every machine has or can make
    steps: int = 1500
    batch: int = 16
    block: int = 64
    layers: int = 4
    d: int = 128
    heads: int = 4
    patch: int = 4
    size: str = "resnet-8"
    dropout: float = 0.0
    optimizer: str = "adamw"
    momentum: float = 0.9
    lr: float = 3e-3
    warmup: int = 100
    min_lr: float = 3e-5
    weight_decay: float = 0.1
    clip: float = 1.0
    dtype: str = "float32"
    precision: str = "float32"  # of what is computed; weights and optimizer are float32 then
    device: str = "cpu"
    seed: int = 0
    save_every: int = 250
    eval_every: int = 250
    eval_batches: int = 100
    save_in_background: bool = False
    on_save_error: str = "stop"
    timeout_s: float = 300.0
    check: bool = False
    memory_limit: str = ""  # of a rank, such as 500MB; "": what is free, by the ranks
    trace: bool = False  # whether every rank records what it does
    # how ranks share the work: see strategies.py
    accumulate: int = 1  # micro-batches, one after another
    zero: int = 0
    bucket_mb: float = 8.0
    overlap: bool = False
    local_steps: int = 1
    compress: str = "none"
    check_every: int = 0
    sequence_parallel: bool = False
    # pipelines
    microbatches: int = 0  # 0: four for each stage
    schedule: str = "1f1b"
    chunks: int = 0  # of the model, on each stage; 0: two if interleaved, else one
    balance: str = "bytes"
    recompute: bool = False
    # parameter servers
    ps: str = "none"  # sync, async, ssp
    servers: int = 1
    workers: int = 2
    staleness: int = 1  # of ssp: clocks that a worker may be ahead of the slowest
    prefetch: bool = False
    on_worker_loss: str = "error"
    snapshot_every: int = 0  # updates of a server; 0: it is not started again if it dies
    # trouble on purpose: see drills.py
    slow_worker: str = ""
    kill_worker: str = ""

    @property
    def ranks(self) -> int:
        """How many ranks train it."""
        return self.workers_in_all + (self.servers if self.ps != "none" else 0)

    @property
    def workers_in_all(self) -> int:
        """The ranks that compute."""
        return self.workers if self.ps != "none" else self.dp * self.pp * self.tp

    @property
    def places(self) -> int:
        """Into how many parts a batch is dealt."""
        return self.workers if self.ps != "none" else self.dp

    @property
    def computes_in(self) -> str:
        """The dtype of what goes into the model, and of what comes out."""
        return self.dtype if self.precision == "float32" else self.precision

    @property
    def micros(self) -> int:
        """In how many micro-batches a replica's part of a batch is cut."""
        if self.pp == 1:
            return self.accumulate
        return self.microbatches or min(4 * self.pp, max(1, self.batch // self.dp))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Config:
        """Raises: CheckpointError if that is no config of ours."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is not the config.json of a run: {error}") from None


# What `--resume` cannot change, because a checkpoint fits only one of them.
FIXED = (
    "model",
    "block",
    "layers",
    "d",
    "heads",
    "patch",
    "size",
    "optimizer",
    "momentum",
    "dtype",
)
COUNTS = (
    *("dp", "steps", "batch", "block", "layers", "d", "heads", "patch", "eval_batches"),
    *("pp", "tp", "accumulate", "local_steps", "servers", "workers"),
)
NOT_NEGATIVE = (
    *("warmup", "weight_decay", "save_every", "eval_every", "min_lr", "seed"),
    *("bucket_mb", "check_every", "microbatches", "chunks", "staleness", "snapshot_every"),
)
# What has a meaning only with another option.
GO_WITH = MappingProxyType(
    {
        "pp": ("microbatches", "schedule", "chunks", "balance", "recompute"),
        "tp": ("sequence_parallel",),
        "ps": ("servers", "workers", "prefetch", "on_worker_loss", "snapshot_every"),
        "ps ssp": ("staleness",),
    }
)
OPTIMIZERS = ("adamw", "sgd", "adagrad")
PRECISIONS = ("float32", "float16", "bfloat16")
DEVICES = ("cpu", "cuda")


def check(config: Config) -> None:
    """Raises: UsageError with one sentence about the first thing that cannot work."""
    c = config
    _check_types(c)
    if c.optimizer not in OPTIMIZERS:
        raise UsageError(f"--optimizer is one of {', '.join(OPTIMIZERS)}, not {c.optimizer!r}.")
    if c.dtype not in ("float32", "float64"):
        raise UsageError(f"--dtype is float32 or float64, not {c.dtype!r}.")
    if c.precision not in PRECISIONS:
        raise UsageError(f"--precision is one of {', '.join(PRECISIONS)}, not {c.precision!r}.")
    if c.precision != "float32" and c.dtype != "float32":
        raise UsageError(
            f"--precision {c.precision} keeps weights in float32, so not --dtype {c.dtype}."
        )
    if c.device not in DEVICES:
        raise UsageError(f"--device is {' or '.join(DEVICES)}, not {c.device!r}.")
    for name in COUNTS:
        if getattr(c, name) < 1:
            raise UsageError(f"--{option(name)} must be at least 1, not {getattr(c, name)}.")
    for name in ("dropout", "momentum"):
        if not 0 <= getattr(c, name) < 1:
            raise UsageError(f"--{name} must be at least 0 and below 1, not {getattr(c, name)}.")
    for name in ("lr", "clip", "timeout_s"):
        if not 0 < getattr(c, name) < math.inf:
            raise UsageError(f"--{option(name)} must be a number above 0, not {getattr(c, name)}.")
    for name in NOT_NEGATIVE:
        if not getattr(c, name) >= 0:
            raise UsageError(f"--{option(name)} must be at least 0, not {getattr(c, name)}.")
    if c.memory_limit:
        try:
            parsed_bytes(c.memory_limit)
        except ValueError:
            said = f"--memory-limit is a size above 0, like 500MB, 2GB, not {c.memory_limit!r}."
            raise UsageError(said) from None
    if c.on_save_error not in ("stop", "continue"):
        raise UsageError(f"--on-save-error is stop or continue, not {c.on_save_error!r}.")
    if c.min_lr > c.lr:
        raise UsageError(f"--min-lr {c.min_lr} is above --lr {c.lr}; make it smaller.")
    if c.model in ("gpt", "vit") and c.d % c.heads:
        raise UsageError(f"--d {c.d} cannot be divided among {c.heads} heads; change one of them.")
    _check_batch(c)


def _check_types(c: Config) -> None:
    """The command line makes numbers of what it reads; Python, and a manifest, say anything."""
    for name, kind in option_types().items():
        value = getattr(c, name)
        if (kind is float and type(value) is int) or (name == "data" and value is None):
            continue
        if type(value) is not kind:
            raise UsageError(f"--{option(name)} is of type {kind.__name__}, not {value!r}.")


def check_given(config: Config, given: Mapping[str, Any]) -> None:
    """Raises: UsageError if one of the options that were given (and not as --no-) does nothing.

    Only of those: what a run that is resumed had before may have lost its meaning.
    """
    c = config
    asked = {"pp": c.pp > 1, "tp": c.tp > 1, "ps": c.ps != "none", "ps ssp": c.ps == "ssp"}
    for other, names in GO_WITH.items():
        for name in names:
            if given.get(name, False) is not False and not asked[other]:
                raise UsageError(f"--{option(name)} does nothing here: it goes with --{other}.")


def _check_batch(c: Config) -> None:
    """Whether the batch can be cut into equal parts; micro-batches of a pipeline may be uneven."""
    if c.pp > 1 and c.batch // c.dp < c.micros:
        raise UsageError(
            f"--batch {c.batch} gives each of {c.dp} pipelines {c.batch // c.dp} rows, which "
            f"cannot be cut into {c.micros} micro-batches: use a larger --batch, or fewer "
            "--microbatches."
        )
    parts = c.places * c.accumulate
    if c.batch % parts:
        less, more = c.batch // parts * parts, (c.batch // parts + 1) * parts
        of = f"{c.places} {'ranks' if c.ranks == c.places else 'replicas'}"
        of = of if c.ps == "none" else f"{c.places} workers"
        of += f" in {c.accumulate} micro-batches" if c.accumulate > 1 else ""
        raise UsageError(
            f"a batch of {c.batch} cannot be divided among {of}: "
            f"use --batch {f'{less} or ' if less else ''}{more}."
        )


def option(name: str) -> str:
    """The command line's word for a field."""
    return name.removesuffix("_s").replace("_", "-")


def option_types() -> dict[str, Any]:
    """Name -> type (int, float, bool, str) of every field, for whoever builds a parser of them."""
    kinds = {"int": int, "float": float, "bool": bool}
    return {f.name: kinds.get(str(f.type), str) for f in fields(Config)}
