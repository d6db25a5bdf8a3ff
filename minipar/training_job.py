"""`minipar train` from the launcher's side: prepare a run folder, start the ranks, sum up.

Training itself is in `train`; this file is what happens around it, in the process that the user
started: the comparison with one rank, the figure, the summary, and what Ctrl-C leaves.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from minipar.comm.failure import Failure
from minipar.comm.launch import check, function_work, run_processes, run_threads
from minipar.comm.script import LabelledOutput
from minipar.config import Config
from minipar.config import check as check_config
from minipar.data import load_text
from minipar.errors import CheckpointError, UsageError
from minipar.parallel import checkpoint
from minipar.run_folder import RunFolder
from minipar.trace.figures import draw_loss
from minipar.train import FIRST_STEPS, alone, first_steps_on_one_rank, train_rank

# How far weights may be apart after FIRST_STEPS.
SAME = MappingProxyType({"float32": 1e-4, "float64": 1e-10})


class Job(NamedTuple):
    """A training run that can start."""

    config: Config
    run: RunFolder
    resume: bool


class RanksFailed(Exception):
    """Ranks ended in an error, which has been shown."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def prepare(given: Mapping[str, Any], out: str | None, resume: str | None) -> Job:
    """Check everything that can be checked before ranks start.  given: options that were set.

    Raises: UsageError, CheckpointError.
    """
    if resume is not None and out is not None:
        raise UsageError("--resume goes on in its own folder; leave out --out.")
    base = RunFolder(resume).config() if resume is not None else Config()
    config = replace(base, **given)
    check_config(config)
    check(config.dp, config.backend)
    for part, text in zip(("training", "validation"), load_text(config.data), strict=True):
        if len(text) <= config.block:
            raise UsageError(
                f"the {part} text has {len(text)} bytes, and one sequence needs "
                f"{config.block + 1}: pass a longer text (--data), or a smaller --block."
            )
    if resume is None:
        return Job(config, RunFolder.create(config, out), resume=False)
    run = RunFolder(resume)
    if run.latest_checkpoint() is None:
        raise CheckpointError(f"{run.checkpoints} holds no complete checkpoint to resume from.")
    config.save(run.path / "config.json")
    return Job(config, run, resume=True)


def execute(job: Job, *, as_json: bool, log_dir: str | None = None) -> int:
    """Train, compare with one rank, draw, report; the exit code."""
    begun = time.monotonic()
    config, run = job.config, job.run
    try:
        ranks = _on_ranks(train_rank, config, (str(run.path), job.resume), log_dir)
        result = ranks[0]
        weight, norm = differences_to_one_rank(config, run)
    except RanksFailed as failed:
        return failed.exit_code
    except KeyboardInterrupt:
        print(f"minipar: {_how_to_go_on(run)}", file=sys.stderr)
        return 130
    sample = result.pop("sample")
    (run.path / "sample.txt").write_bytes(sample)
    draw_loss(run.metrics(), run.figure, title=f"{config.model}, {config.dp} ranks, {run.path}")
    summary = {
        "model": config.model,
        "ranks": config.dp,
        "backend": config.backend,
        **result,
        "seconds": time.monotonic() - begun,
        "max_difference_to_one_rank": weight,
        "max_grad_norm_difference_to_one_rank": norm,
        "run_dir": str(run.path),
    }
    if as_json:
        print(json.dumps(summary))
    else:
        print(_report(summary, config, sample))
    return 0


def differences_to_one_rank(config: Config, run: RunFolder) -> tuple[float, float]:
    """The largest differences to one rank over the first steps: of a weight after them, and of a
    gradient norm on the way (relative).

    Weights alone would not show gradients that are too large by a factor (a sum in place of a mean,
    say): clipping and Adam take the factor out again.
    """
    mine = checkpoint.load(run.first_steps)[0]
    theirs, norms_of_one = _on_ranks(first_steps_on_one_rank, alone(config), (), None)[0]
    norms = [m["grad_norm"] for m in run.metrics() if "grad_norm" in m][: len(norms_of_one)]
    weight = max(float(np.abs(mine[name] - theirs[name]).max()) for name in mine)
    return weight, float(np.abs(np.divide(norms, norms_of_one) - 1).max())


def _on_ranks(fn: Any, config: Config, args: Sequence[Any], log_dir: str | None) -> list[Any]:
    """fn(group, config, *args) on config.dp ranks.  Raises: RanksFailed, KeyboardInterrupt."""
    if config.backend == "local":
        with LabelledOutput(config.dp, log_dir, plain=(0,)):
            results, failed = run_threads(fn, config.dp, (config, *args))
        failure = None if failed is None else Failure.of(*failed)
    else:
        done = run_processes(
            function_work(fn, (config, *args)),
            config.dp,
            timeout_s=config.timeout_s,
            plain=(0,),
            log_dir=log_dir,
        )
        results, failure = done.results, done.failure
    if failure is not None:
        failure.show(config.dp)
        raise RanksFailed(failure.exit_code)
    return results


def _how_to_go_on(run: RunFolder) -> str:
    last = run.latest_checkpoint()
    if last is None:
        return f"interrupted before the first checkpoint; {run.path} has only the metrics so far."
    step = int(last.name.removeprefix("step-"))
    return (
        f"interrupted; the last checkpoint is that of step {step}. "
        f"Go on with: minipar train --resume {run.path}"
    )


def _report(summary: Mapping[str, Any], config: Config, sample: bytes) -> str:
    shown, prompt = sample[config.block :], sample[: config.block]
    return f"""
{_verdict(summary, config)}
training loss    {summary["train_loss"]:.3f} nats per byte
validation loss  {summary["val_loss"]:.3f}
speed            {summary["tokens_per_s"] / 1000:.1f}k tokens/s, {summary["seconds"]:.0f} s in all
run folder       {summary["run_dir"]}

A sample. After a piece of the validation text,
{_indented(prompt)}
the model goes on:
{_indented(shown)}"""


def _verdict(summary: Mapping[str, Any], config: Config) -> str:
    weight = summary["max_difference_to_one_rank"]
    norm = summary["max_grad_norm_difference_to_one_rank"]
    same = "" if max(weight, norm) <= SAME[config.dtype] else "NOT "
    ranks = "1 rank  " if config.dp == 1 else f"{config.dp} ranks "
    return (
        f"{ranks}         {same}the same as one rank: after {min(FIRST_STEPS, config.steps)} steps "
        f"no weight differs by more than {weight:.1e}"
        f"\n                 (and on the way no gradient norm by more than {norm:.1e} of itself)"
    )


def _indented(text: bytes) -> str:
    return "\n".join("    | " + line for line in text.decode(errors="replace").splitlines())
