"""Which way of sharing the work a `Config` asks for; the training loop serves all of them.

--zero 1|2|3          ZeRO: optimizer state, gradients, parameters sharded
--local-steps k       local SGD: replicas on their own, averaged every k steps
--compress NAME       gradients travel as float16, int8, top-k or powersgd
(none of them)        data parallel in buckets; --overlap sends them during backward

--tp N                each layer is cut over N ranks (--sequence-parallel: and the rest over
                      positions); ranks with the same slices share the work by any of these
--ps sync|async|ssp   workers compute, --servers hold the weights and the optimizer
--pp N                each replica is a pipeline of N ranks; the replicas of a stage share the work
                      by any of these
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.comm.started import under_mpi
from minipar.config import Config
from minipar.device import modules_of
from minipar.nn import ONE_RANK, BatchNorm, Module
from minipar.optim import SGD, Adagrad, AdamW, Optimizer
from minipar.parallel.batch_norm import synchronise
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.compress import COMPRESSORS, Apart, Compressed
from minipar.parallel.data import DataParallel
from minipar.parallel.local_sgd import LocalSGD
from minipar.parallel.mesh import Mesh
from minipar.parallel.mixed import LossScale, MixedPrecision
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.parameter_server import (
    Conduct,
    ParameterServer,
    Roles,
    Rule,
    Snapshots,
    rule_named,
    serve,
)
from minipar.parallel.passes import Loss, OneByOne, Part, Passes, as_input, as_numbers
from minipar.parallel.pipeline_strategy import PipelineParallel
from minipar.parallel.pipelined import Pipeline
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.parallel.sharding import kinds_of
from minipar.parallel.stages import balanced, bytes_of, pieces_of, seconds_of
from minipar.parallel.strategy import MakeOptimizer, Strategy
from minipar.parallel.tensor_layers import TensorKit
from minipar.parallel.tensor_strategy import TensorParallel, WholeModel
from minipar.random import Draw
from minipar.recipes import build_model, find
from minipar.spans import know
from minipar.tally import axes_of
from minipar.tensor import Tensor


class Member(NamedTuple):
    """What one rank of a run has: its share of the data, and what it does with it."""

    place: int  # of each batch it has part `place` of `places`
    places: int
    strategy: Strategy
    passes: Passes
    together: Group | None  # who makes each step at the same time; None: nobody waits for others
    axes: Mapping[int, str] = MappingProxyType({})  # what its groups are for, by their number
    updates: Callable[[], int] | None = None  # of all workers, where each goes at its own pace
    mixed: MixedPrecision | None = None  # if it computes in 16 bits
    xp: Any = np  # the array module of its weights
    touched: Callable[[Any], dict[str, Array]] | None = None  # by x: rows of tables on servers

    @property
    def scale(self) -> LossScale | None:
        """By what losses are multiplied before backward; None: by nothing."""
        return None if self.mixed is None else self.mixed.scale

    def full(self) -> AbstractContextManager[None]:
        """Inside, the weights are those that are kept and saved, and not roundings of them."""
        return nullcontext() if self.mixed is None else self.mixed.full()

    def begin(self, parts: Sequence[Part]) -> None:
        """Begin a step: let go of all gradients, and get from servers what these parts need."""
        strategy: Any = self.strategy
        if self.touched is None:
            strategy.zero_grad()
            return
        rows: dict[str, list[Array]] = {}
        for part in parts:
            for name, ids in self.touched(part.x).items():
                rows.setdefault(name, []).append(ids.reshape(-1))
        strategy.pull({name: np.concatenate(ids) for name, ids in rows.items()})

    def mean(self, x: Array) -> Array:
        """The mean over those who step together; they all call this."""
        return x if self.together is None else self.together.all_reduce(x, op="mean")

    @property
    def part_of_validation(self) -> tuple[int, int]:
        """Which part of how many."""
        return (0, 1) if self.together is None else (self.place, self.places)

    @property
    def speaks(self) -> bool:
        """Whether it takes part in evaluating and saving: all do together, or the first alone."""
        return self.together is not None or self.place == 0

    def done(self, own: int) -> int:
        """How many steps the run has made, if this rank has made so many."""
        return own if self.updates is None else self.updates() // self.places


def join(config: Config, world: Group, train: Any, roles: Roles | None = None) -> Member:
    """This rank's part in a run of the ranks of world.  Collective, over all that train.

    train: the training data.  roles: of workers and servers, if there are servers.
    """
    xp = modules_of(config.device, local_rank(world))
    if roles is not None:
        return _join_workers(config, roles, train, xp)
    c, make = config, make_optimizer(config)
    mesh = Mesh(world, dp=c.dp, pp=c.pp, tp=c.tp)
    kit = TensorKit(mesh.tp, c.sequence_parallel) if c.tp > 1 else ONE_RANK
    model: Any = build_model(c, train, kit, xp=xp)
    know(model)
    if c.local_steps == 1:  # replicas on their own have batches of their own
        synchronise(model, mesh.dp)
    mixed = None if c.precision == "float32" else MixedPrecision(model, c.precision)
    make = make if mixed is None else mixed.optimizer(make)
    loss = model.output.loss if c.tp > 1 else find(c.model).task.loss

    def share(part: Module, dp: Group, make: MakeOptimizer) -> Strategy:
        """How ranks with the same part of the model, or all of it, share the work."""
        if c.tp == 1:
            return make_strategy(c, part, dp, make)
        over = mesh.group("dp", "tp") if c.zero else mesh.tp  # who has all of the gradient
        return TensorParallel(
            part, mesh.tp, make, lambda m, make: make_strategy(c, m, dp, make), over
        )

    strategy: Strategy
    passes: Passes
    if c.pp > 1:
        passes = pipeline = _pipeline(c, model, loss, mesh, train)
        view = partial(WholeModel, group=mesh.tp) if c.tp > 1 else None
        if c.tp > 1:
            pipeline.complete = model.output.whole
        strategy = PipelineParallel(pipeline, make, mesh.dp, share, view)
    else:
        strategy = share(model, mesh.dp, make)
        passes = OneByOne(model, strategy, loss)
    axes, place = axes_of(mesh), (mesh.dp.rank, mesh.dp.size)
    return Member(*place, strategy, passes, world, axes, mixed=mixed, xp=xp)


def local_rank(world: Group) -> int:
    """The number of this rank among those of its host."""
    place = under_mpi(os.environ) if world.backend == "mpi" else None
    return world.rank if place is None else place.local_rank


def _join_workers(c: Config, roles: Roles, train: Any, xp: Any) -> Member:
    """The part of a worker."""
    assert roles.worker is not None
    model, rounds = build_model(c, train, hollow=True, xp=xp), rule_of(c).rounds
    know(model)
    if rounds and roles.workers is not None:
        synchronise(model, roles.workers)
    compress = c.compress if c.compress in ("float16", "int8") else "none"
    strategy = ParameterServer(
        model, roles, make_optimizer(c), prefetch=c.prefetch, compress=compress, xp=xp
    )
    passes = OneByOne(model, strategy, find(c.model).task.loss)
    together = roles.workers if rounds and c.on_worker_loss == "error" else None
    updates = None if rounds else partial(_updates, strategy)
    touched = getattr(model, "touched", None) if strategy.tables else None
    of = (roles.worker, c.workers, strategy, passes, together)
    return Member(*of, updates=updates, xp=xp, touched=touched)


def _updates(strategy: ParameterServer) -> int:
    return max(line.pulled for line in strategy.worker.lines)


def rule_of(config: Config) -> Rule:
    """Raises: UsageError."""
    return rule_named(config.ps, config.staleness)


def serve_run(config: Config, roles: Roles, train: Any, folder: Path) -> None:
    """Be a server of the run until its workers are through.

    folder: gets snapshots, and at the end what happened (`server-0.json`).
    """
    every = config.snapshot_every
    snapshots = Snapshots(folder, every) if every else None
    first = roles.worker_ranks[:1]  # who evaluates and saves
    conduct = Conduct(on_worker_loss=config.on_worker_loss, snapshots=snapshots, needs=first)
    model = build_model(config, train)
    report = serve(roles, model, make_optimizer(config), rule_of(config), conduct)
    folder.mkdir(parents=True, exist_ok=True)  # on another host than rank 0's it may be missing
    (folder / f"server-{roles.server}.json").write_text(json.dumps(report.summary()) + "\n")


def _pipeline(c: Config, model: Module, loss: Loss, mesh: Mesh, train: Any) -> Pipeline:
    """This rank's stage of a pipeline.  Collective."""
    costs = bytes_of(pieces_of(model))
    if c.balance == "time":
        rows = range(max(1, c.batch // c.dp // c.micros))
        x, y = train.batch(np.array(rows))
        xp = array_module(*(x.data for x in model.parameters()))
        part = Part(
            as_input(x, c.computes_in, xp), as_numbers(y, c.dtype), Draw(c.seed, 0, rows), 1.0
        )
        costs = mesh.world.broadcast(np.array(seconds_of(model, part, loss))).tolist()
    cuts = balanced(costs, c.pp * chunks_of(c))
    return Pipeline(model, mesh.pp, loss, c.schedule, cuts, c.recompute)


def waited(passes: Passes) -> int:
    """How long this stage had to wait for others in the last step, in ns; 0 without stages."""
    run = passes.last if isinstance(passes, Pipeline) else None
    return 0 if run is None else run.mail.waited


def chunks_of(c: Config) -> int:
    return c.chunks or (2 if c.schedule == "interleaved" else 1)


def make_strategy(config: Config, model: Module, group: Group, make: MakeOptimizer) -> Strategy:
    """How replicas share the work; the strategy now owns the model's gradients.  Collective."""
    c = config
    if c.zero:
        return (Zero1, Zero2, Zero3)[c.zero - 1](model, group, make)
    if c.local_steps > 1:
        return LocalSGD(model, group, make, every=c.local_steps)
    if c.compress != "none":
        make_how = COMPRESSORS[c.compress]
        how = make_how() if c.tp == 1 else Apart(make_how, kinds_of(model))
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


def why_not_like_one_rank(config: Config, model: Module) -> str | None:
    """Why a run with this config computes something else than one rank would; None: it does not."""
    if config.ps != "none" and not rule_of(config).rounds:
        return f"{rule_of(config)} applies each worker's gradient by itself"
    if config.local_steps > 1:
        return "replicas that train on their own are another algorithm"
    if config.compress != "none":
        return "compression rounds the gradients"
    if config.micros > 1 and any(isinstance(m, BatchNorm) for m in model.modules()):
        return "batch norm sees micro-batches, and other ones"
    return None
