"""A checkpoint is a folder of plain .npy files and a manifest that says what they are.

    step-000500/manifest.json      {"format": ..., "meta": {...}, "arrays": {name: {shape, dtype,
                                    "slices": [{file, start, stop, sha256}]}}}
                model/blocks.0.norm1.weight.npy ...

The manifest knows global shapes and which slice of an array each file holds, so that a layout
where ranks hold slices can write the same format. Nothing is pickled. The folder gets its name
only once it is complete: a crash while it is written leaves the one before.

Left out on purpose: writing slices from several ranks; here one rank holds and writes it all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minipar.array import Array, to_numpy
from minipar.errors import CheckpointError

FORMAT = "minipar checkpoint 1"


def save(folder: str | Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Write the arrays and meta (what JSON can say) as one checkpoint.

    arrays: by name; a name may contain "/", which becomes a sub-folder.
    After:  `folder` exists and is complete, or is as it was before.
    """
    folder = Path(folder)
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    old = folder.with_name(f"{folder.name}.old-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    entries = {name: _write(part, name, to_numpy(array)) for name, array in arrays.items()}
    manifest = {"format": FORMAT, "meta": dict(meta), "arrays": entries}
    with open(part / "manifest.json", "w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    if folder.exists():  # there is no moment without a complete one, under this name or .old
        os.rename(folder, old)
    os.rename(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, name: str, array: np.ndarray) -> dict[str, Any]:
    path = folder / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    whole = {"start": [0] * array.ndim, "stop": list(array.shape)}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "slices": [{"file": f"{name}.npy", **whole, "sha256": digest}],
    }


def load(folder: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by name, and the meta.  Raises: CheckpointError, naming the file at fault."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is not a checkpoint: {error}") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{folder} has format {found!r}; this minipar reads {FORMAT!r}.")
    try:
        arrays = {name: _read(folder, name, entry) for name, entry in manifest["arrays"].items()}
        return arrays, manifest["meta"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder}/manifest.json says what cannot be: {error!r}") from None


def _read(folder: Path, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    array = np.empty(entry["shape"], entry["dtype"])
    for piece in entry["slices"]:
        path = (folder / piece["file"]).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise CheckpointError(f"{folder}: {name} lies outside the checkpoint, at {path}.")
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{folder}: the file of {name} cannot be read: {error}") from None
        if hashlib.sha256(raw).hexdigest() != piece["sha256"]:
            raise CheckpointError(
                f"{path} is damaged: its content is not what was written (sha256 differs)."
            )
        place = tuple(map(slice, piece["start"], piece["stop"]))
        array[place] = np.load(path, allow_pickle=False)
    return array


def latest(folder: str | Path) -> Path | None:
    """The complete checkpoint step-NNNNNN with the largest number in the folder, if any."""
    found = [path.parent for path in Path(folder).glob("step-*/manifest.json")]
    complete = [path for path in found if path.name.removeprefix("step-").isdigit()]
    return max(complete, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def save_step(folder: str | Path, step: int, arrays: Mapping[str, Array], meta: Any) -> Path:
    """Save as step-NNNNNN in the folder, then remove the older ones."""
    path = Path(folder, f"step-{step:06d}")
    save(path, arrays, meta)
    for old in Path(folder).glob("step-*"):
        if old != path and old.is_dir():
            shutil.rmtree(old)
    return path
