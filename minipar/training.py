"""Training: one loop, the same on one rank and on many.

    batch -> loss -> backward -> mean gradient over ranks -> clip -> optimizer step

A step is a pure function of the weights, the optimizer state and (seed, step): the data order,
the dropout masks and the learning rate all follow from these. So a run that is resumed, or runs
on another number of ranks, goes through the same numbers, up to rounding.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from minipar.array import to_numpy
from minipar.checks import checks
from minipar.comm.group import Group
from minipar.comm.tracing import tracing
from minipar.comm.wiring import even_cuts
from minipar.config import Config
from minipar.data import Sampler
from minipar.drills import drills_of
from minipar.errors import CheckpointError, Diverged
from minipar.evaluation import evaluate
from minipar.ledger import Ledger, links
from minipar.optim import warmup_cosine
from minipar.parallel import checkpoint
from minipar.parallel.parameter_server import ParameterServer, Roles
from minipar.parallel.passes import Part, as_input, as_numbers
from minipar.progress import SHOWN_LOSS, Report
from minipar.random import Draw
from minipar.recipes import find
from minipar.run_folder import RunFolder
from minipar.spans import at_step, span
from minipar.strategies import join, serve_run, waited

FIRST_STEPS = 20  # the steps after which the weights are compared with those of one rank
LAYOUT = ("dp", "pp", "tp", "zero")  # what a checkpoint tells of how it was written


class Trainer:
    """One rank's part of a training run."""

    def __init__(self, group: Group, config: Config, roles: Roles | None = None) -> None:
        """roles: of workers and servers, if there are servers; this rank is a worker then."""
        self.group, self.config, self.step = group, config, 0
        self.drills = drills_of(config)
        self.task = find(config.model).task
        self.train, self.val = self.task.load(config)
        self.sampler = Sampler(len(self.train), config.batch, config.seed)
        self.member = member = join(config, group, self.train, roles)
        self.strategy, self.passes = member.strategy, member.passes
        other = "world" if roles is None else "ps"
        self.ledger = Ledger(group, member.axes, other, member.xp)
        self._workers = None if roles is None else roles.workers
        self.saver = checkpoint.Saver(member.together, config.save_in_background)
        self._begun = 0  # the step of the checkpoint that it goes on from

    def train_step(self) -> dict[str, Any]:
        """One step on this rank's rows; the loss is the mean over the rows of all ranks."""
        scale = self.member.scale
        overflowing = scale.overflowing() if scale else contextlib.nullcontext()
        with self.ledger.step() as found, overflowing:
            metrics = self._train_step()
        self.ledger.wait(waited(self.passes))
        return metrics | found

    def _train_step(self) -> dict[str, Any]:
        c, strategy, member = self.config, self.strategy, self.member
        rows = self.sampler.rows(member.place, member.places)
        at_step(self.step)
        scale = 1.0 if member.scale is None else member.scale.scale
        with span("data"):
            parts = self._parts(rows, scale)
        member.begin(parts)
        strategy.announce(len(rows))
        begin = time.perf_counter()
        loss = self.passes.train(parts) / scale
        self.drills.slow_down(self.group, time.perf_counter() - begin)
        with span("reduce"):
            strategy.sync_gradients(len(rows))
            mean = float(member.mean(np.array(loss)))
        with span("clip"):
            norm = strategy.clip(c.clip * scale) / scale
        holds = member.scale is None or member.scale.holds(norm)
        # no step, so that none can be saved
        if not math.isfinite(mean) or (holds and not math.isfinite(norm)):
            raise Diverged(
                f"step {self.step + 1}: the loss is {mean}, the norm of the gradient {norm}; try a "
                "smaller --lr."
            )
        strategy.optimizer.lr = lr = warmup_cosine(self.done, c.steps, c.lr, c.warmup, c.min_lr)
        if holds:
            with span("optimizer"):
                strategy.step()
        self.step += 1
        self.drills.strike(self.group, self.step)
        found: dict[str, Any] = {"step": self.done, "loss": mean, "lr": lr}
        found |= {"grad_norm": norm} if holds else {"skipped": True}
        return found if member.scale is None else {**found, "loss_scale": scale}

    @property
    def done(self) -> int:
        """The steps of the run so far; those of this rank unless each goes at its own pace."""
        return self._begun + self.member.done(self.step - self._begun)

    def _parts(self, rows: range, scale: float) -> list[Part]:
        """These rows of the global batch, in micro-batches; their losses count `scale` times."""
        c, indices = self.config, self.sampler.indices(self.step)
        cuts = even_cuts(len(rows), c.micros)
        parts = []
        for start, stop in pairwise(rows.start + cut for cut in cuts):
            x, y = self.train.batch(indices[start:stop])
            draw = Draw(c.seed, self.step, range(start, stop))
            share = scale * (stop - start) / len(rows)
            parts.append(
                Part(
                    as_input(x, c.computes_in, self.member.xp), as_numbers(y, c.dtype), draw, share
                )
            )
        return parts

    @property
    def compares(self) -> bool:
        """Whether its first steps can be compared with one rank's, and it is to say how they were.

        A run that is resumed before they are over may have begun in another way.
        """
        return self.member.speaks and not self.member.updates and not self._begun

    def evaluate(self) -> dict[str, float]:
        """As `evaluation.evaluate`, which see.  Collective."""
        return evaluate(self.config, self.task, self.val, self.member)

    # -- checkpoints --------------------------------------------------------------------------

    def weights(self) -> dict[str, Any]:
        """Copies of all weights in host memory, named as in a checkpoint.  Collective."""
        with self.member.full(), self.strategy.whole() as model:
            state = model.state_dict().items()
            return {f"model/{name}": to_numpy(array) for name, array in state}

    def save(self, run: RunFolder) -> None:
        """Write a checkpoint, or begin to, if that is done in the background.

        Collective, over those who speak.  Raises: CheckpointError, unless the config says to go on.
        """
        self.saved()
        with self.unless_it_goes_on():
            self.save_at(checkpoint.step_folder(run.checkpoints, self.done), self._meta())

    def save_at(self, folder: Path, meta: dict[str, Any]) -> None:
        """Collective.  Raises: CheckpointError."""
        with self.member.full(), self.strategy.held() as held:
            self.saver.save(folder, held, meta)

    def saved(self) -> None:
        """Wait for what is written in the background.  Raises: as `save`."""
        with self.unless_it_goes_on():
            self.saver.wait()

    @contextlib.contextmanager
    def unless_it_goes_on(self) -> Iterator[None]:
        """What cannot be saved ends the run, or is said, as the config wishes."""
        try:
            yield
        except CheckpointError as error:
            if self.config.on_save_error == "stop":
                raise
            if self.group.rank == 0:
                print(f"minipar: {error} The run goes on.", file=sys.stderr, flush=True)

    def _meta(self) -> dict[str, Any]:
        """Beside weights and state nothing decides how a run goes on but these."""
        c, epoch = self.config, self.sampler.steps_per_epoch
        names = LAYOUT if c.ps == "none" else ("ps", "workers", "servers")
        meta = {
            "step": self.done,
            "seed": c.seed,
            "data": {"epoch": self.done // epoch, "batch": self.done % epoch, "rows": c.batch},
            "layout": {name: getattr(c, name) for name in names},
            "config": asdict(c),
        }
        scale = self.member.scale
        return meta if scale is None else {**meta, "loss_scale": scale.state()}

    def restore(self, run: RunFolder) -> None:
        """Go to where the last checkpoint was written.  Raises: CheckpointError."""
        folder = run.latest_checkpoint()
        if folder is None:
            raise CheckpointError(f"{run.checkpoints} holds no complete checkpoint to resume from.")
        self.restore_from(folder)

    def restore_from(self, folder: Path) -> None:
        """Go to where a checkpoint was written, in any layout.  Raises: CheckpointError."""
        source = checkpoint.Checkpoint(folder)
        if self._workers is None and not isinstance(self.strategy, ParameterServer):
            with self.member.full(), self.strategy.held() as held:
                self.saver.load(source, held)
            self.strategy.optimizer.steps = int(source.array("optimizer/step"))
        else:
            self._give_to_servers(source)
        if self.member.scale is not None and "loss_scale" in source.meta:
            self.member.scale.load(source.meta["loss_scale"])
        self.step = self._begun = source.meta["step"]

    def _give_to_servers(self, source: checkpoint.Checkpoint) -> None:
        arrays = {name: source.array(name) for name in source.arrays}
        with self.strategy.whole() as model:
            if self._workers is not None:  # all see the old weights before one replaces them
                self._workers.barrier()
            model.load_state_dict(_part(arrays, "model/"))
        self.strategy.load_state_dict(_part(arrays, "optimizer/"))


def _part(arrays: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}


# -- what a rank runs (process: in its own process) -------------------------------------------


def train_rank(group: Group, config: Config, path: str, resume: bool) -> dict[str, Any]:
    """Train to config.steps in the run folder `path`, or serve those who do.

    Returns: the numbers that `minipar train` reports; nothing, on a server.
    """
    run = RunFolder(path)
    with tracing(group, run.trace) if config.trace else contextlib.nullcontext():
        return _train_or_serve(group, config, run, resume)


def _train_or_serve(group: Group, config: Config, run: RunFolder, resume: bool) -> dict[str, Any]:
    roles = None
    if config.ps != "none":
        roles = Roles(group, config.servers)
        if roles.is_server:
            serve_run(config, roles, find(config.model).task.load(config)[0], run.servers)
            return {}
    trainer = Trainer(group, config, roles)
    trainer.saver.after = checkpoint.tidy  # in a run folder only the last ones are kept
    if resume:
        trainer.restore(run)
        if group.rank == 0:
            run.forget_after(trainer.step)
    result = _train(trainer, run)
    if isinstance(trainer.strategy, ParameterServer):
        trainer.strategy.close()
    return result


def _train(trainer: Trainer, run: RunFolder) -> dict[str, Any]:
    """The loop, and what it reports."""
    group, config, speaks = trainer.group, trainer.config, trainer.member.speaks
    begun, first = time.perf_counter(), trainer.done
    found: dict[str, float] = {}
    costs: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(trainer.saver.abandon)  # nothing is under way, unless the run has failed
        log = stack.enter_context(open(run.metrics_file, "a")) if group.rank == 0 else None
        report = Report(config, trainer.task, log, first)
        all_step = trainer.member.together is group and not config.slow_worker
        between = links(group) if all_step else None
        if trainer.done >= config.steps and speaks:  # all is done already
            found = trainer.evaluate()
        if config.check:
            stack.enter_context(checks())
        done = first
        while (before := done) < config.steps:
            metrics = trainer.train_step()
            report.step(metrics)
            done = trainer.done  # once a round: while this rank saves, others may get to the end
            if done == min(FIRST_STEPS, config.steps) and trainer.compares:
                weights = trainer.weights()
                if group.rank == 0:
                    with trainer.unless_it_goes_on():
                        checkpoint.save(run.first_steps, weights, {"config": asdict(config)})
            if _due(before, done, config.save_every, config.steps) and speaks:
                with span("checkpoint"):
                    trainer.save(run)
            if _due(before, done, config.eval_every, config.steps) and speaks:
                with span("evaluate"):
                    found = trainer.evaluate()
                costs = trainer.ledger.summary(trainer.member.together)
                report.evaluation(done, found, costs)
        trainer.saved()
    seconds = time.perf_counter() - begun
    task, trained = trainer.task, trainer.done - first
    result: dict[str, Any] = {**found, "train_seconds": seconds, "steps": trainer.done}
    if trained and speaks:
        result |= {**costs, "links": between}
    items = trained * config.batch * task.items(config)
    result["item"], result[f"{task.counted}_per_s"] = task.item, items / seconds if trained else 0.0
    if group.backend == "local" and config.slow_worker:
        result["virtual_seconds"] = group.now_ns() / 1e9
    result["best_loss"] = getattr(trainer.val, "best_loss", None)
    if group.rank == 0:
        losses = [m["loss"] for m in run.metrics() if "loss" in m][-SHOWN_LOSS:]
        result["train_loss"] = float(np.mean(losses))
    if speaks:
        with trainer.strategy.whole() as model:
            if task.sample is not None:
                with span("sample"):
                    result["sample"] = task.sample(model, trainer.val, config)
    return result


def _due(before: int, done: int, every: int, steps: int) -> bool:
    """Whether a multiple of every, or the end, was reached."""
    return done >= steps or (every > 0 and done // every > before // every)


def first_steps_on_one_rank(group: Group, config: Config) -> tuple[dict[str, Any], list[float]]:
    """The weights after the first steps, and the gradient norms on the way; config.dp is 1."""
    trainer = Trainer(group, config)
    print("comparing the first steps with one rank ...", end="\r", file=sys.stderr, flush=True)
    steps = [trainer.train_step() for _ in range(min(FIRST_STEPS, config.steps))]
    return trainer.weights(), [step["grad_norm"] for step in steps if "grad_norm" in step]


def alone(config: Config) -> Config:
    """The same training on one rank."""
    backend = "local" if config.backend == "mpi" else config.backend
    config = replace(config, ps="none", slow_worker="", kill_worker="")
    config = replace(config, dp=1, pp=1, tp=1, backend=backend, zero=0, overlap=False)
    return replace(config, accumulate=1, check_every=0, recompute=False, sequence_parallel=False)
