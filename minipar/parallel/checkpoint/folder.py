"""Checkpoints under names: step-000500 in a folder, of which the last ones are kept.

checkpoint.save(folder, arrays, meta)               one checkpoint, by one rank
arrays, meta = checkpoint.load(folder)
checkpoint.save_step(folder, 500, arrays, meta)     as step-000500; older ones go
checkpoint.latest(folder)                           the last complete one
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minipar.array import Array, to_numpy
from minipar.errors import CheckpointError
from minipar.parallel.checkpoint import manifest, writer
from minipar.parallel.checkpoint.reader import Checkpoint
from minipar.parallel.checkpoint.saver import Saver
from minipar.parallel.held import Held

KEPT = 2  # one to go on from, and one before it


def save(folder: str | Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Write whole arrays and meta (what JSON can say) as one checkpoint, by this rank alone.

    arrays: by name; of a name like model/up.weight, model becomes a sub-folder.
    After:  `folder` exists and is complete, or is as it was before.
    Raises: CheckpointError.
    """
    held = [Held(name, array := to_numpy(a), array.shape) for name, a in arrays.items()]
    Saver(None).save(Path(folder), held, meta)


def load(folder: str | Path, prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by name, and the meta.

    prefix: of the names that are wanted, such as "model/"; the other files are not read.
    Raises: CheckpointError, naming the file at fault.
    """
    source = Checkpoint(folder)
    return {n: source.array(n) for n in source.arrays if n.startswith(prefix)}, source.meta


def save_step(
    folder: str | Path, step: int, arrays: Mapping[str, Array], meta: Any, keep: int = 1
) -> Path:
    """Save as step-NNNNNN in the folder, then remove all but the last ones."""
    path = step_folder(folder, step)
    save(path, arrays, meta)
    tidy(path, keep)
    return path


def step_folder(folder: str | Path, step: int) -> Path:
    return Path(folder, f"step-{step:06d}")


def step_of(path: Path) -> int | None:
    """The step in the name of a checkpoint; None if it is none of these names."""
    number = path.name.removesuffix(".old").removeprefix("step-")
    return int(number) if number.isdigit() and path.name.startswith("step-") else None


def steps(folder: str | Path) -> list[Path]:
    """The complete checkpoints in a folder, the last one at the end."""
    found: dict[int, Path] = {}
    for path in sorted(Path(folder).glob("step-*"), reverse=True):  # .old before its successor
        step = step_of(path)
        if step is not None and (path / manifest.NAME).exists():
            found[step] = path
    return [found[step] for step in sorted(found)]


def latest(folder: str | Path) -> Path | None:
    """The complete checkpoint step-NNNNNN with the largest number in the folder, if any."""
    return steps(folder)[-1] if steps(folder) else None


def find(path: str | Path) -> Path:
    """The checkpoint that is meant: itself, or the last one of a run.  Raises: CheckpointError."""
    path = Path(path)
    if (path / manifest.NAME).exists() or path.with_name(path.name + ".old").exists():
        return path
    for place in (path, path / "checkpoints"):
        if (last := latest(place)) is not None:
            return last
    raise CheckpointError(f"{path} is neither a checkpoint nor the folder of a run with one.")


def tidy(last: Path, keep: int = KEPT) -> None:
    """Beside a checkpoint that is new, remove all but the last ones."""
    there, own = steps(last.parent), step_of(last)
    after = [path for path in there if (step_of(path) or 0) > (own or 0)]  # a future that is undone
    before = [path for path in there if path != last and path not in after]
    for path in after + before[: len(before) + 1 - keep]:
        writer.remove(path)
    for path in last.parent.glob("step-*.old"):  # of a crash; until now it may have been the last
        shutil.rmtree(path, ignore_errors=True)
