"""`minipar train` from the launcher's side: prepare a run folder, start the ranks, sum up.

Training itself is in `train`; this file is what happens around it, in the process that the user
started: the comparison with one rank, the figure, the summary, and what Ctrl-C leaves.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from minipar.comm.failure import Failure
from minipar.comm.hosts.nodes import Nodes
from minipar.comm.launch import check, function_work, run_processes, run_threads
from minipar.comm.local import LocalWorld
from minipar.comm.script import LabelledOutput
from minipar.config import FIXED, Config, check_given, option
from minipar.config import check as check_config
from minipar.device import missing_for_cuda
from minipar.drills import drills_of
from minipar.errors import CheckpointError, UsageError
from minipar.forecast import Need, forecast, refuse_if_too_large, table
from minipar.parallel import checkpoint
from minipar.recipes import build_model, find, not_looked_at
from minipar.refusals import check as check_together
from minipar.refusals import check_model
from minipar.run_folder import RunFolder
from minipar.strategies import why_not_like_one_rank
from minipar.trace.figures import draw_loss
from minipar.train import FIRST_STEPS, alone, first_steps_on_one_rank, train_rank
from minipar.training_report import draw_served, ranks_in_words, report, who_was_lost
from minipar.trial import Trial, tried

# How far weights may be apart after FIRST_STEPS. Rounding grows with the rate: resnet, which begins
# with steps of 0.5, comes to 1e-4 in float32; a wrong gradient comes to 1e-2.
SAME = MappingProxyType({"float32": 1e-3, "float64": 1e-10, "float16": 1e-2, "bfloat16": 5e-2})


class Job(NamedTuple):
    """A training run that can start."""

    config: Config
    run: RunFolder
    resume: bool
    plan: Plan | None = None  # what it will need and take, where that was found out


class Plan(NamedTuple):
    """What is known of a run before it starts."""

    needs: list[Need]
    trial: Trial


class RanksFailed(Exception):
    """Ranks ended in an error, which has been shown."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def prepare(
    given: Mapping[str, Any], out: str | None, resume: str | None, ranks: int | None = None
) -> Job:
    """Check everything that can be checked before ranks start.

    given: options that were set.  ranks: that are there already, of which each replica gets its
    part; None: as many are started as the options ask for.
    Raises: UsageError, CheckpointError.
    """
    if resume is not None and out is not None:
        raise UsageError("--resume goes on in its own folder; leave out --out.")
    base = _config_of(resume) if resume is not None else _defaults(given.get("model", "gpt"))
    config = replace(base, **given)
    if ranks is not None:
        config = _filling(config, ranks, given)
    for name in not_looked_at(config.model, given):
        print(f"minipar: {config.model} does not look at --{option(name)}", file=sys.stderr)
    check_config(config)
    check_given(config, given)
    check_together(config)
    if config.device == "cuda" and (missing := missing_for_cuda(compute=False)):
        raise UsageError(f"--device cuda: {missing}")
    drills_of(config)
    if ranks is None:
        check(config.ranks, config.backend)
    if resume is None:
        _check_place(config, out)
    plan = _planned(config)
    if resume is None:
        return Job(config, RunFolder.create(config, out), False, plan)
    run = RunFolder(resume)
    for name in FIXED:
        if getattr(config, name) != getattr(base, name):
            raise UsageError(
                f"--{option(name)} cannot change on --resume: {resume} was trained with "
                f"{getattr(base, name)}."
            )
    if run.latest_checkpoint() is None:
        raise CheckpointError(f"{run.checkpoints} holds no complete checkpoint to resume from.")
    config.save(run.path / "config.json")
    run.forget_servers()
    return Job(config, run, True, plan)


def _filling(config: Config, ranks: int, given: Mapping[str, Any]) -> Config:
    """The config with as many replicas, or workers, as there are ranks for, if none are given."""
    c, each = config, config.ranks // config.dp
    if c.ps != "none":
        config = c if "workers" in given else replace(c, workers=max(1, ranks - c.servers))
        of = f"{config.workers} workers and {config.servers} servers"
    else:
        config = c if "dp" in given else replace(c, dp=max(1, ranks // each))
        of = f"--dp {config.dp}" if each == 1 else f"--dp {config.dp} of {each} ranks each"
    if config.ranks != ranks:
        raise UsageError(f"{of} is {config.ranks} ranks, but {ranks} are started.")
    return config


def _defaults(model: str) -> Config:
    return replace(Config(model=model), **find(model).defaults)


def _config_of(resume: str) -> Config:
    if not Path(resume).is_dir():
        raise UsageError(f"there is no run folder {resume}; --resume takes one, like runs/gpt-1.")
    config = RunFolder(resume).config()
    return replace(config, slow_worker="", kill_worker="")  # a drill is over with the job it was in


def _planned(config: Config) -> Plan:
    """Load the data and build the model once, here, where what is wrong is said once.

    The model only if its weights fit.  Raises: UsageError.
    """
    data = find(config.model).task.load(config)
    for part, examples in zip(("training", "validation"), data, strict=True):
        if len(examples) < config.batch:
            raise UsageError(
                f"the {part} data has {len(examples)} examples, and a batch needs {config.batch}. "
                "Pass more (--data) or a smaller --batch (for text, also a smaller --block)."
            )
    refuse_if_too_large(config, forecast(config, data[0]))
    model = build_model(config, data[0])
    check_model(config, model)
    trial = tried(config, model, data[0])
    needs = forecast(config, data[0], trial)
    refuse_if_too_large(config, needs)
    return Plan(needs, trial)


def _check_place(config: Config, out: str | None) -> None:
    place = Path(out or "runs").resolve()
    if config.data is not None and place.is_relative_to(Path(config.data).resolve()):
        raise UsageError(
            f"the run folder would lie inside --data {config.data}, and what the run writes would "
            "become text to train on; choose an --out elsewhere."
        )


def execute(job: Job, *, as_json: bool, log_dir: str | None = None) -> int:
    """Train, compare with one rank, draw, report; the exit code."""
    begun = time.monotonic()
    if job.plan is not None:
        print(table(job.plan.needs), file=sys.stderr)
    try:
        ranks = on_ranks(train_rank, job.config, (str(job.run.path), job.resume), log_dir)
        return conclude(job, ranks[0], begun, as_json=as_json)
    except RanksFailed as failed:
        if job.run.latest_checkpoint() is not None:
            print(f"minipar: {_how_to_go_on(job.run)}", file=sys.stderr)
        return failed.exit_code
    except KeyboardInterrupt:
        print(f"minipar: interrupted; {_how_to_go_on(job.run)}", file=sys.stderr)
        return 130


def conclude(job: Job, result: dict[str, Any], begun: float, *, as_json: bool) -> int:
    """Compare with one rank, draw, report; the exit code: 1 if it is not the same as one rank.

    result: of rank 0.  Raises: as `on_ranks`.
    """
    config, run = job.config, job.run
    why = who_was_lost(run) or _why_not_compared(config, run)
    first = differences_to_one_rank(run) if why is None else None
    sample = result.pop("sample", None)
    if sample is not None:
        (run.path / "sample.txt").write_bytes(b"".join(sample))
    title = f"{config.model}, {ranks_in_words(config.ranks)}, {run.path}"
    draw_loss(run.metrics(), run.figure, title, unit=f"nats per {result['item']}")
    summary = {
        "model": config.model,
        "ranks": config.ranks,
        "backend": config.backend,
        **result,
        "seconds": time.monotonic() - begun,
        "max_difference_to_one_rank": first and first.weight,
        "max_grad_norm_difference_to_one_rank": first and first.grad_norm,
        "run_dir": str(run.path),
    }
    if config.ps != "none":
        summary["servers"] = servers = run.server_reports()
        draw_served(config, run, servers)
    if as_json:
        print(json.dumps(summary))
    else:
        who = ranks_in_words(config.ranks)
        same = str(first) if first else f"{who:16s} not compared with one rank: {why}"
        print(report(summary, same, find(config.model).task.counted, sample))
    return 0 if first is None or first.same else 1


def _why_not_compared(config: Config, run: RunFolder) -> str | None:
    """What keeps this run, or its first steps, from being like one rank; None: nothing."""
    model = build_model(config)
    if why := why_not_like_one_rank(config, model):
        return why
    if run.first_steps.exists():
        begun = Config(**checkpoint.load(run.first_steps)[1]["config"])
        if why_not_like_one_rank(begun, model) is None:
            return None
    return "it began in a way that is not compared"


class Differences(NamedTuple):
    """How far the first steps of a run are from the same steps on one rank."""

    config: Config  # of the first steps; a resumed run may have changed since
    weight: float  # the largest difference of any weight after them
    grad_norm: float  # the largest relative difference of a gradient norm on the way

    @property
    def same(self) -> bool:
        return max(self.weight, self.grad_norm) <= SAME[self.config.computes_in]

    def __str__(self) -> str:
        c, limit = self.config, SAME[self.config.computes_in]
        ranks = "1 rank, twice" if c.ranks == 1 else ranks_in_words(c.ranks)
        steps = min(FIRST_STEPS, c.steps)
        if self.same:
            return (
                f"{ranks:16s} the same as one rank: after {steps} steps no weight differs by more "
                f"than {self.weight:.1e}\n{'':16s} (and on the way no gradient norm by more than "
                f"{self.grad_norm:.1e} of itself)"
            )
        return (
            f"{ranks:16s} NOT the same as one rank: after {steps} steps a weight differs by "
            f"{self.weight:.1e},\n{'':16s} on the way a gradient norm by {self.grad_norm:.1e} of "
            f"itself (allowed: {limit:.0e})"
        )


def differences_to_one_rank(run: RunFolder) -> Differences:
    """Go through the first steps again, on one rank, and compare.

    Weights alone would not show gradients that are too large by a factor (a sum in place of a mean,
    say): clipping and Adam take the factor out again.
    """
    mine, meta = checkpoint.load(run.first_steps)
    config = Config(**meta["config"])
    theirs, norms_of_one = on_ranks(first_steps_on_one_rank, alone(config), (), None)[0]
    norms = [m["grad_norm"] for m in run.metrics() if "grad_norm" in m][: len(norms_of_one)]
    weight = max(float(np.abs(mine[name] - theirs[name]).max(initial=0)) for name in mine)
    if len(norms) != len(norms_of_one):  # other steps were skipped
        return Differences(config, weight, math.inf)
    return Differences(config, weight, float(np.abs(np.divide(norms, norms_of_one) - 1).max()))


def on_ranks(
    fn: Any, config: Config, args: Sequence[Any], log_dir: str | None, nodes: Nodes | None = None
) -> list[Any]:
    """fn(group, config, *args) on config.ranks ranks; what those of this host returned.

    nodes: of several hosts.  Raises: RanksFailed, KeyboardInterrupt.
    """
    if config.backend == "local":
        with LabelledOutput(config.ranks, log_dir, plain=(0,)):
            cluster = drills_of(config).cluster()
            world = LocalWorld(config.ranks, restarts=restarts(config), cluster=cluster)
            results, failed = run_threads(fn, config.ranks, (config, *args), world)
        failure = None if failed is None else Failure.of(*failed)
    else:
        done = run_processes(
            function_work(fn, (config, *args)),
            config.ranks if nodes is None else len(nodes.mine),
            timeout_s=config.timeout_s,
            plain=(0,),
            log_dir=log_dir,
            nodes=nodes,
            restarts=restarts(config),
        )
        results, failure = done.results, done.failure
    first = nodes is None or nodes.node == 0
    if failure is None and first and isinstance(results[0], BaseException):
        failure = Failure.of(0, results[0])  # lost, though others went on
    if failure is not None:
        failure.show(config.ranks)
        raise RanksFailed(failure.exit_code)
    return results


def restarts(c: Config) -> int | None:
    """How many lost ranks are started again; None: a lost rank ends the run.

    With servers that make snapshots, each server may be lost once.
    """
    goes_on = c.ps in ("async", "ssp") or c.on_worker_loss == "drop" or c.snapshot_every
    return (c.servers if c.snapshot_every else 0) if c.ps != "none" and goes_on else None


def _how_to_go_on(run: RunFolder) -> str:
    last = run.latest_checkpoint()
    if last is None:
        return f"there is no checkpoint yet; {run.path} has only the metrics so far."
    step = int(last.name.removeprefix("step-"))
    return (
        f"the last checkpoint is that of step {step}. "
        f"Go on with: minipar train --resume {shlex.quote(str(run.path))}"
    )
