"""`minipar train` from the launcher's side: prepare a run folder, start the ranks, sum up.

Training itself is in `train`; this file is what happens around it, in the process that the user
started: the comparison with one rank, the figure, the summary, and what Ctrl-C leaves.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from minipar.comm.launch import check
from minipar.comparison import differences_to_one_rank, why_not_compared
from minipar.config import FIXED, Config, check_given, option
from minipar.config import check as check_config
from minipar.cost_card import card
from minipar.device import missing_for_cuda
from minipar.drills import drills_of
from minipar.errors import CheckpointError, UsageError
from minipar.expected import Expected, expected
from minipar.forecast import Need, as_dicts, forecast, refuse_if_too_large, table
from minipar.parallel import checkpoint
from minipar.ranks import RanksFailed, on_ranks, ranks_in_words
from minipar.recipes import build_model, find, not_looked_at
from minipar.refusals import check as check_together
from minipar.refusals import check_model
from minipar.run_folder import RunFolder
from minipar.trace.figures import draw_loss
from minipar.trace.last_moments import last_moments
from minipar.training import train_rank
from minipar.training_report import draw_served, report, who_was_lost
from minipar.trial import tried


class Job(NamedTuple):
    """A training run that can start."""

    config: Config
    run: RunFolder
    resume: bool
    plan: Plan | None = None  # what it will need and take, where that was found out


class Plan(NamedTuple):
    """What is known of a run before it starts."""

    needs: list[Need]
    costs: Expected


def prepare(
    given: Mapping[str, Any],
    out: str | None,
    resume: str | None,
    ranks: int | None = None,
    here: int | None = None,
) -> Job:
    """Check everything that can be checked before ranks start.

    given: options that were set.  ranks: that are there already, of which each replica gets its
    part; None: as many are started as the options ask for.  here: how many of them on this host.
    Raises: UsageError, CheckpointError.
    """
    for name, place in (("out", out), ("resume", resume)):
        if not isinstance(place, str | os.PathLike | None):
            raise UsageError(f"--{name} is a folder, not {place!r}.")
    if resume is not None and out is not None:
        raise UsageError("--resume goes on in its own folder; leave out --out.")
    base = _config_of(resume) if resume is not None else _defaults(given.get("model", "gpt"))
    config = replace(base, **given)
    if config.backend == "nccl" and "device" not in given:
        config = replace(config, device="cuda")
    if ranks is not None:
        config = _filling(config, ranks, given)
    for name in not_looked_at(config.model, given):
        print(f"minipar: {config.model} does not look at --{option(name)}", file=sys.stderr)
    check_config(config)
    check_given(config, given)
    check_together(config)
    if config.device == "cuda" and (missing := missing_for_cuda(compute=False)):
        asked = "--backend nccl" if config.backend == "nccl" else "--device cuda"
        raise UsageError(f"{asked}: {missing}")
    drills_of(config)
    if ranks is None:
        check(config.ranks, config.backend, config.share_gpu)
    if resume is None:
        _check_place(config, out)
    plan = _planned(config, here)
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
    if config.trace:
        run.keep_trace()
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


def _planned(config: Config, here: int | None) -> Plan:
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
    refuse_if_too_large(config, forecast(config, data[0]), here)
    model = build_model(config, data[0])
    check_model(config, model)
    trial = tried(config, model, data[0])
    needs = forecast(config, data[0], trial)
    refuse_if_too_large(config, needs, here)
    return Plan(needs, expected(config, data[0], trial))


def _check_place(config: Config, out: str | None) -> None:
    place = Path(out or "runs").resolve()
    if config.data is not None and place.is_relative_to(Path(config.data).resolve()):
        raise UsageError(
            f"the run folder would lie inside --data {config.data}, and what the run writes would "
            "become text to train on; choose an --out elsewhere."
        )


class Result(NamedTuple):
    """A run that is over; print(result) is its report."""

    config: Config
    run: RunFolder
    summary: dict[str, Any]  # what --json prints (docs/training.md)
    same: str  # how the first steps compare with one rank
    ok: bool  # whether they do, if they can be compared
    sample: tuple[bytes, bytes] | None  # what a model of text was given, and what it wrote

    def __str__(self) -> str:
        task = find(self.config.model).task
        return report(self.summary, self.same, task.counted, self.sample)


def train(
    model: str | None = None,
    *,
    out: str | None = None,
    resume: str | None = None,
    log_dir: str | None = None,
    **options: Any,
) -> Result:
    """Train a model: what `minipar train` does, which calls this.

    model:   a name (recipes.RECIPES), or FILE.py:CLASS; None: gpt, or what resume has.
    out:     the run folder (None: the first free runs/MODEL-N).  resume: a run folder to go on in.
    options: of the command line, as in `Config`: dp=2, steps=300, backend="local", ...
    Raises: UsageError, CheckpointError; RanksFailed; KeyboardInterrupt.
    """
    if model is not None:
        options["model"] = model
    unknown = sorted(options.keys() - {f.name for f in fields(Config)})
    if unknown:
        raise UsageError(f"there is no option {unknown[0]}; minipar train --help lists them.")
    return carry_out(prepare(options, out=out, resume=resume), log_dir)


def carry_out(job: Job, log_dir: str | None = None) -> Result:
    """Train, compare with one rank, draw.  Raises: RanksFailed, KeyboardInterrupt."""
    begun = time.monotonic()
    if job.plan is not None:
        print(table(job.plan.needs), file=sys.stderr)
    try:
        args = (str(job.run.path), job.resume)
        return conclude(job, on_ranks(train_rank, job.config, args, log_dir)[0], begun)
    except RanksFailed:
        if job.config.trace:
            print(f"minipar: {last_moments(job.run.trace)}", file=sys.stderr)
        if job.run.latest_checkpoint() is not None:
            print(f"minipar: {_how_to_go_on(job.run)}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; {_how_to_go_on(job.run)}") from None


def conclude(job: Job, result: dict[str, Any], begun: float) -> Result:
    """Compare with one rank, draw, and put together what is to be said.

    result: of rank 0.  Raises: as `on_ranks`.
    """
    config, run = job.config, job.run
    why = who_was_lost(run) or why_not_compared(config, run)
    first = differences_to_one_rank(run) if why is None else None
    sample = result.pop("sample", None)
    if sample is not None:
        (run.path / "sample.txt").write_bytes(b"".join(sample))
    title = f"{config.model}, {ranks_in_words(config.ranks)}, {run.path}"
    draw_loss(run.metrics(), run.figure, title, unit=f"nats per {result['item']}")
    summary: dict[str, Any] = {
        "model": config.model,
        "ranks": config.ranks,
        "backend": config.backend,
        **result,
        "seconds": time.monotonic() - begun,
        "max_difference_to_one_rank": first and first.weight,
        "max_grad_norm_difference_to_one_rank": first and first.grad_norm,
        "run_dir": str(run.path),
    }
    if config.trace:
        summary["timeline"] = (
            f"minipar timeline {shlex.quote(str(run.path))} --step {max(0, result['steps'] - 1)}"
        )
    if job.plan is not None:
        summary["forecast"] = as_dicts(job.plan.needs)
        if "step_seconds" in result:
            summary["cost_card"] = card(config, job.plan.costs, job.plan.needs, result)
            costs = {"card": summary["cost_card"], "forecast": summary["forecast"]}
            run.costs_file.write_text(json.dumps(costs) + "\n")
    if config.ps != "none":
        summary["servers"] = servers = run.server_reports()
        draw_served(config, run, servers)
    who = ranks_in_words(config.ranks)
    same = str(first) if first else f"{who:16s} not compared with one rank: {why}"
    if first and (begun_on := first.config.ranks) != config.ranks:
        same += f"\n{'':16s} (the run began on {ranks_in_words(begun_on)}, which are compared here)"
    return Result(config, run, summary, same, first is None or first.same, sample)


def _how_to_go_on(run: RunFolder) -> str:
    last = run.latest_checkpoint()
    if last is None:
        return f"there is no checkpoint yet; {run.path} has only the metrics so far."
    return (
        f"the last checkpoint is that of step {checkpoint.step_of(last)}. "
        f"Go on with: minipar train --resume {shlex.quote(str(run.path))}"
    )
