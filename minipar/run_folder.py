"""The folder of one training run.

runs/gpt-1/config.json          what was trained: see `config.Config`
           metrics.jsonl        a JSON object per step, and one per evaluation
           loss.png             the two as curves
           costs.json           the cost card, and the forecast of memory
           first_steps/         weights after the first steps, to compare with one rank's
           checkpoints/step-001500/
           servers/             of parameter servers: snapshots, and what happened
           trace/               what each rank did (--trace): see `minipar timeline`
           trace-1/, ...        the same of the parts before, if the run was resumed
           staleness.png        how stale the pushes were that they applied
"""

from __future__ import annotations

import json
import shutil
from itertools import count
from pathlib import Path
from typing import Any

from minipar.config import Config, check
from minipar.errors import CheckpointError, UsageError
from minipar.parallel import checkpoint


class RunFolder:
    """Names and reads what is in the folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.metrics_file = self.path / "metrics.jsonl"
        self.costs_file = self.path / "costs.json"
        self.figure = self.path / "loss.png"
        self.checkpoints = self.path / "checkpoints"
        self.first_steps = self.path / "first_steps"
        self.servers = self.path / "servers"
        self.trace = self.path / "trace"

    @classmethod
    def create(cls, config: Config, out: str | None) -> RunFolder:
        """A new folder: `out`, or the first free runs/MODEL-N.  Raises: UsageError."""
        path = _first_free(config.model) if out is None else Path(out)
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file: --out names a folder.")
        if path.exists() and any(path.iterdir()):
            raise UsageError(
                f"{path} is not empty: choose another --out, or go on with --resume {path}."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            config.save(path / "config.json")
        except OSError as error:
            raise UsageError(f"--out {path} cannot be a run folder: {error}.") from None
        return cls(path)

    def config(self) -> Config:
        return Config.load(self.path / "config.json")

    def keep_trace(self) -> None:
        """Make room for another trace: the one that is there becomes trace-1, trace-2, ..."""
        if self.trace.is_dir():
            free = (self.path / f"trace-{n}" for n in count(1))
            self.trace.rename(next(path for path in free if not path.exists()))

    def latest_checkpoint(self) -> Path | None:
        return checkpoint.latest(self.checkpoints)

    def metrics(self) -> list[dict[str, Any]]:
        """All that was recorded so far; a last line that a crash cut off is left out."""
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def server_reports(self) -> list[dict[str, Any]]:
        """What each parameter server has told at its end, in their order."""
        return [json.loads(f.read_text()) for f in sorted(self.servers.glob("server-*.json"))]

    def forget_servers(self) -> None:
        """What servers of an earlier job have left: a checkpoint is what a run goes on from."""
        shutil.rmtree(self.servers, ignore_errors=True)

    def forget_after(self, step: int) -> None:
        """Drop what was recorded after that step: it will be done, and recorded, again."""
        kept = [json.dumps(m) + "\n" for m in self.metrics() if m["step"] <= step]
        new = self.metrics_file.with_suffix(".new")
        new.write_text("".join(kept))
        new.replace(self.metrics_file)


def config_of(source: checkpoint.Checkpoint) -> Config:
    """Of the run that wrote a checkpoint: in it, or above it.  Raises: CheckpointError."""
    if "config" in source.meta:
        try:
            config = Config(**source.meta["config"])
            check(config)
            return config
        except TypeError as error:
            raise CheckpointError(f"{source.folder} is of another minipar: {error}") from None
        except UsageError as error:
            raise CheckpointError(f"{source.folder} has a config that cannot be: {error}") from None
    for folder in list(source.folder.resolve().parents)[:2]:
        if (folder / "config.json").is_file():
            return RunFolder(folder).config()
    raise CheckpointError(f"{source.folder} does not say which model it is of.")


def _first_free(model: str) -> Path:
    """runs/MODEL-N, made here, so that no other run that starts now gets the same."""
    name = model.rpartition(":")[2].lower()  # of FILE.py:CLASS the class
    for n in count(1):
        path = Path("runs", f"{name}-{n}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(
                f"no run folder can be made here: {error.strerror}: {error.filename!r}; choose one "
                "with --out."
            ) from None
        return path
    raise AssertionError("count() has no end")
