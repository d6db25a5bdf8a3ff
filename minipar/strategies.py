"""Which way of sharing the work a `Config` asks for; the training loop serves all of them.

--zero 1|2|3          ZeRO: optimizer state, gradients, parameters sharded
--local-steps k       local SGD: replicas on their own, averaged every k steps
--compress NAME       gradients travel as float16, int8, top-k or powersgd
(none of them)        data parallel in buckets; --overlap sends them during backward

--tp N                each layer is cut over N ranks (--sequence-parallel: and the rest over
                      positions); ranks with the same slices share the work by any but ZeRO
--pp N                each replica is a pipeline of N ranks; the replicas of a stage share the work
                      by any of these that sends nothing before backward is over
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minipar.comm.group import Group
from minipar.config import Config
from minipar.errors import UsageError
from minipar.nn import ONE_RANK, BatchNorm, Module
from minipar.optim import SGD, Adagrad, AdamW, Optimizer
from minipar.parallel.batch_norm import synchronise
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.compress import COMPRESSORS, Compressed
from minipar.parallel.data import DataParallel
from minipar.parallel.local_sgd import LocalSGD
from minipar.parallel.mesh import Mesh
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.passes import Loss, OneByOne, Part, Passes, as_input, as_numbers
from minipar.parallel.pipelined import Pipeline, PipelineParallel
from minipar.parallel.schedule import named
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.parallel.stages import balanced, bytes_of, pieces_of, seconds_of
from minipar.parallel.strategy import MakeOptimizer, Strategy
from minipar.parallel.tensor_layers import TensorKit
from minipar.parallel.tensor_strategy import TensorParallel, WholeModel
from minipar.random import Draw
from minipar.recipes import RECIPES, build_model, find
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
    c, make = config, make_optimizer(config)
    mesh = Mesh(world, dp=c.dp, pp=c.pp, tp=c.tp)
    kit = TensorKit(mesh.tp, c.sequence_parallel) if c.tp > 1 else ONE_RANK
    model: Any = build_model(c, train, kit)
    if c.local_steps == 1:  # replicas on their own have batches of their own
        synchronise(model, mesh.dp)
    loss = model.output.loss if c.tp > 1 else find(c.model).task.loss

    def share(part: Module, dp: Group, make: MakeOptimizer) -> Strategy:
        """How ranks with the same part of the model, or all of it, share the work."""
        if c.tp == 1:
            return make_strategy(c, part, dp, make)
        return TensorParallel(part, mesh.tp, make, lambda m, make: make_strategy(c, m, dp, make))

    strategy: Strategy
    passes: Passes
    if c.pp > 1:
        passes = pipeline = _pipeline(c, model, loss, mesh, train)
        view = partial(WholeModel, group=mesh.tp) if c.tp > 1 else None
        strategy = PipelineParallel(pipeline, make, mesh.dp, share, view)
    else:
        strategy = share(model, mesh.dp, make)
        passes = OneByOne(model, strategy, loss)
    return Member(mesh.dp.rank, mesh.dp.size, world, strategy, passes)


def _pipeline(c: Config, model: Module, loss: Loss, mesh: Mesh, train: Any) -> Pipeline:
    """This rank's stage of a pipeline.  Collective."""
    chunks = c.chunks or (2 if c.schedule == "interleaved" else 1)
    costs = bytes_of(pieces_of(model))
    if c.balance == "time":
        rows = range(max(1, c.batch // c.dp // c.micros))
        x, y = train.batch(np.array(rows))
        part = Part(as_input(x, c.dtype), as_numbers(y, c.dtype), Draw(c.seed, 0, rows), 1.0)
        costs = mesh.world.broadcast(np.array(seconds_of(model, part, loss))).tolist()
    cuts = balanced(costs, c.pp * chunks)
    return Pipeline(model, mesh.pp, loss, c.schedule, cuts, c.recompute)


def make_strategy(config: Config, model: Module, group: Group, make: MakeOptimizer) -> Strategy:
    """How replicas share the work; the strategy now owns the model's gradients.  Collective."""
    c = config
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
    if c.pp > 1:
        _check_pipeline(c)
    if c.tp > 1 or c.sequence_parallel:
        _check_tensor_parallel(c)
    if c.check_every and (c.zero or c.local_steps > 1):
        raise UsageError("--check-every compares replicas; here they are not meant to be equal.")


def _check_pipeline(c: Config) -> None:
    if c.balance not in ("bytes", "time"):
        raise UsageError(f"--balance is by bytes or time, not {c.balance!r}.")
    if c.accumulate > 1:
        raise UsageError("--accumulate: a pipeline has --microbatches for that.")
    if c.overlap or c.zero > 1:
        what = "--overlap" if c.overlap else f"--zero {c.zero}"
        raise UsageError(
            f"{what} sends gradients while backward runs, and a pipeline has many backwards in a "
            "step; it goes with --zero 1, --compress, --local-steps and buckets."
        )
    chunks = c.chunks or (2 if c.schedule == "interleaved" else 1)
    named(c.schedule, c.pp, c.micros, chunks)  # whether there is such a schedule


def _check_tensor_parallel(c: Config) -> None:
    if c.tp == 1:
        raise UsageError("--sequence-parallel goes with --tp: it cuts what --tp leaves whole.")
    if not find(c.model).uses_kit:
        able = ", ".join(name for name, recipe in RECIPES.items() if recipe.uses_kit)
        raise UsageError(f"--tp: the layers of {c.model} cannot be shared; those of {able} can.")
    if c.zero:
        raise UsageError("--zero with --tp is not there yet: both cut the same gradients.")


def why_not_like_one_rank(config: Config, model: Module) -> str | None:
    """Why a run with this config computes something else than one rank would; None: it does not."""
    if config.local_steps > 1:
        return "replicas that train on their own are another algorithm"
    if config.compress != "none":
        return "compression rounds the gradients"
    if config.micros > 1 and any(isinstance(m, BatchNorm) for m in model.modules()):
        return "batch norm sees micro-batches, and other ones"
    return None
