"""Which way of sharing the work a `Config` asks for; the training loop serves all of them.

--zero 1|2|3          ZeRO: optimizer state, gradients, parameters sharded
--local-steps k       local SGD: replicas on their own, averaged every k steps
--compress NAME       gradients travel as float16, int8, top-k or powersgd
(none of them)        data parallel in buckets; --overlap sends them during backward
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from minipar.comm.group import Group
from minipar.config import Config
from minipar.errors import UsageError
from minipar.nn import BatchNorm, Module
from minipar.optim import SGD, Adagrad, AdamW, Optimizer
from minipar.parallel.batch_norm import synchronise
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.compress import COMPRESSORS, Compressed
from minipar.parallel.data import DataParallel
from minipar.parallel.local_sgd import LocalSGD
from minipar.parallel.mesh import Mesh
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.passes import Passes, OneByOne
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.parallel.strategy import MakeOptimizer, Strategy
from minipar.recipes import build_model, find
from minipar.tensor import Tensor


class Member(NamedTuple):
    """What one rank of a run has: its share of the data, and what it does with it."""

    place: int  # of each batch it has part `place` of `places`
    places: int
    together: Group  # the ranks that make every step side by side; their mean loss is the loss
    strategy: Strategy
    passes: Passes

    @property
    def part_of_validation(self) -> tuple[int, int]:
        """Which part of how many."""
        return self.place, self.places


def join(config: Config, world: Group, train: Any) -> Member:
    """This rank's part in a run of the ranks of world.  train: the training data.  Collective."""
    c = config
    mesh = Mesh(world, dp=c.dp)
    model = build_model(c, train)
    if c.local_steps == 1:  # replicas on their own have batches of their own
        synchronise(model, mesh.dp)
    strategy = make_strategy(c, model, mesh.dp)
    passes = OneByOne(model, strategy, find(c.model).task.loss)
    return Member(mesh.dp.rank, mesh.dp.size, world, strategy, passes)


def make_strategy(config: Config, model: Module, group: Group) -> Strategy:
    """The strategy, which now owns the model's gradients.  Collective."""
    c, make = config, make_optimizer(config)
    if c.zero:
        return (Zero1, Zero2, Zero3)[c.zero - 1](model, group, make)
    if c.local_steps > 1:
        return LocalSGD(model, group, make, every=c.local_steps)
    if c.compress != "none":
        how = COMPRESSORS[c.compress]()
        return Compressed(model, group, make, how, check_every=c.check_every)
    if not c.bucket_mb:
        return DataParallel(model, group, make, check_every=c.check_every)
    bucketed = OverlappedDataParallel if c.overlap else BucketedDataParallel
    size = int(c.bucket_mb * 2**20)
    return bucketed(model, group, make, bucket_bytes=size, check_every=c.check_every)


def make_optimizer(config: Config) -> MakeOptimizer:
    """Makes the optimizer that the config names; its lr is set before each step."""
    c = config

    def make(named: Iterable[tuple[str, Tensor]]) -> Optimizer:
        if c.optimizer == "sgd":
            return SGD(named, c.lr, c.momentum, c.weight_decay)
        if c.optimizer == "adagrad":
            return Adagrad(named, c.lr)
        return AdamW(named, c.lr, weight_decay=c.weight_decay, decay_vectors=False)

    return make


def check(config: Config) -> None:
    """Raises: UsageError if what is asked for does not go together."""
    c = config
    if c.zero not in (0, 1, 2, 3):
        raise UsageError(f"--zero is a stage of ZeRO: 1, 2 or 3 (0: none), not {c.zero}.")
    if c.compress not in ("none", *COMPRESSORS):
        names = ", ".join(("none", *COMPRESSORS))
        raise UsageError(f"--compress is one of {names}, not {c.compress!r}.")
    asked = {
        "--zero": c.zero,
        "--local-steps": c.local_steps > 1,
        "--compress": c.compress != "none",
        "--overlap": c.overlap,
    }
    chosen = [option for option, value in asked.items() if value]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} cannot be combined: each is a way of its own.")
    if c.overlap and not c.bucket_mb:
        raise UsageError("--overlap needs buckets to send: --bucket-mb must be above 0.")
    if c.check_every and (c.zero or c.local_steps > 1):
        raise UsageError("--check-every compares replicas; here they are not meant to be equal.")


def why_not_like_one_rank(config: Config, model: Module) -> str | None:
    """Why a run with this config computes something else than one rank would; None: it does not."""
    if config.local_steps > 1:
        return "replicas that train on their own are another algorithm"
    if config.compress != "none":
        return "compression rounds the gradients"
    if config.accumulate > 1 and any(isinstance(m, BatchNorm) for m in model.modules()):
        return "batch norm sees micro-batches, and other ones"
    return None
