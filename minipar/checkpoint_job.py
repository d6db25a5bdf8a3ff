"""`minipar checkpoint`: what is in one, whether it is whole, and the same in another layout.

show       a table of the arrays: of which shape, in how many files, written by whom
convert    into whole arrays; with a layout, as its ranks would have written them; from and to the
           .safetensors files of GPT-2
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.config import Config
from minipar.errors import CheckpointError, UsageError
from minipar.parallel import checkpoint
from minipar.parallel.boxes import whole
from minipar.parallel.checkpoint import Checkpoint, writer
from minipar.parallel.checkpoint.writer import Part
from minipar.refusals import check
from minipar.run_folder import config_of
from minipar.training import LAYOUT, Trainer, alone

FOREIGN = ".safetensors"


# -- show -------------------------------------------------------------------------------------


def described(path: str, verify: bool) -> dict[str, Any]:
    """What `show` shows; problems: None if nobody has looked for any.  Raises: CheckpointError."""
    source = Checkpoint(checkpoint.find(path))
    arrays = [
        {
            "name": name,
            "shape": list(entry.shape),
            "dtype": entry.dtype,
            "bytes": entry.nbytes,
            "shards": [
                {"file": s.file, "start": s.box.start, "stop": s.box.stop, "rank": s.rank,
                 "sha256": s.sha256}
                for s in entry.shards
            ],
        }
        for name, entry in source.arrays.items()
    ]  # fmt: skip
    return {
        "folder": str(source.folder),
        "meta": source.meta,
        "arrays": arrays,
        "bytes": sum(entry.nbytes for entry in source.arrays.values()),
        "files": sum(len(entry.shards) for entry in source.arrays.values()),
        "problems": list(source.problems()) if verify else None,
    }


def in_words(found: Mapping[str, Any]) -> str:
    """A table of it."""
    arrays, meta = found["arrays"], found["meta"]
    files = Counter(shard["rank"] for a in arrays for shard in a["shards"])
    lines = [
        found["folder"],
        f"step       {meta.get('step', 'not said')}",
        f"layout     {_listed(meta.get('layout'))}",
        f"data       {_listed(meta.get('data'))}; seed {meta.get('seed', 'not said')}",
        f"written    {', '.join(f'{n} files by rank {rank}' for rank, n in sorted(files.items()))}",
        "",
    ]
    rows = [("name", "shape", "dtype", "bytes", "files")]
    for a in arrays:
        shape = " x ".join(map(str, a["shape"])) or "one number"
        rows.append((a["name"], shape, a["dtype"], f"{a['bytes']:,}", str(len(a["shards"]))))
    rows.append((f"{len(arrays)} arrays", "", "", f"{found['bytes']:,}", str(found["files"])))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for name, shape, dtype, *numbers in rows:
        left = f"{name:{widths[0]}s}  {shape:{widths[1]}s}  {dtype:{widths[2]}s}"
        right = "  ".join(f"{text:>{width}s}" for text, width in zip(numbers, widths[3:]))
        lines.append(f"{left}  {right}")
    if found["problems"] is not None:
        lines += ["", *(found["problems"] or ["every file is as it was written"])]
    return "\n".join(lines)


def _listed(said: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in said.items()) if isinstance(said, dict) else "not said"


# -- convert ----------------------------------------------------------------------------------


def convert(source: str, target: str, layout: Mapping[str, int] | None = None) -> Path:
    """Write what is in source as a new checkpoint, or file, target.

    layout: sizes of dp, tp, pp and zero; None: whole arrays, each in one file.
    Raises: UsageError, CheckpointError.
    """
    goal = Path(target)
    if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
        raise UsageError(f"{target} is there already: choose another name.")
    if goal.suffix == FOREIGN:
        if layout or Path(source).suffix == FOREIGN:
            raise UsageError(
                f"{target} has whole weights: it is made of a checkpoint, as they are."
            )
        _export(Checkpoint(checkpoint.find(source)), goal)
    elif Path(source).suffix == FOREIGN:
        if layout:
            raise UsageError(f"--layout: {source} says nothing of how its model can be cut.")
        _import(Path(source), goal)
    elif layout is None:
        _merge(Checkpoint(checkpoint.find(source)), goal)
    else:
        path = checkpoint.find(source)
        config = config_of(Checkpoint(path))
        refuse_own_code(config, path)
        config = laid_out(config, layout)
        run(_as_others, config.ranks, args=(config, path, goal), timeout_s=config.timeout_s)
    return goal


def refuse_own_code(config: Config, checkpoint: Path) -> None:
    """A model of the user's own is a file that is run; one that came with the checkpoint is not.

    Raises: CheckpointError.
    """
    file = config.model.rpartition(":")[0]
    came_with = checkpoint.resolve().parent.parent if file else None  # the run folder
    if came_with is not None and Path(file).resolve().is_relative_to(came_with):
        raise CheckpointError(
            f"{checkpoint} wants the code of {file}, which came with it, to be run. If you trust "
            "it, put that file elsewhere, and train with it."
        )


def laid_out(config: Config, layout: Mapping[str, int]) -> Config:
    """The same model on other ranks.  Raises: UsageError."""
    for name, n in layout.items():
        if name not in LAYOUT:
            raise UsageError(f"--layout takes {', '.join(LAYOUT)}, as in dp=2,tp=2; not {name}.")
        if n < (least := int(name != "zero")):
            raise UsageError(f"--layout {name}={n}: {name} is a number from {least} on.")
    config = replace(
        alone(config), local_steps=1, compress="none", save_in_background=False,
        microbatches=0, chunks=0, schedule="1f1b", balance="bytes",
    )  # fmt: skip
    sizes: dict[str, Any] = dict(layout)
    config = replace(config, **sizes)
    check(config)
    return config


def _as_others(group: Group, config: Config, source: Path, goal: Path) -> None:
    """Be a rank of the new layout: read, and save."""
    trainer = Trainer(group, config)
    trainer.restore_from(source)
    meta = Checkpoint(source).meta
    trainer.save_at(goal, {**meta, "layout": {name: getattr(config, name) for name in LAYOUT}})


def _merge(source: Checkpoint, goal: Path) -> None:
    """One array after the other is in memory."""
    meta = {**source.meta, "layout": {name: int(name != "zero") for name in LAYOUT}}

    def parts() -> Iterator[Part]:
        for name, entry in source.arrays.items():
            yield Part(name, entry.shape, whole(entry.shape), source.array(name))

    try:
        writer.begin(goal)
        writer.write(goal, 0, parts())
        writer.commit(goal, 1, meta)
    except OSError as error:
        writer.drop(goal)
        raise CheckpointError(f"{goal} cannot be written: {error}") from error


def _export(source: Checkpoint, goal: Path) -> None:
    config, names = config_of(source), [n for n in source.arrays if n.startswith("model/")]
    if config.model != "gpt":
        raise UsageError(f"GPT-2's files are for gpt; {source.folder} is of {config.model}.")
    weights = {name.removeprefix("model/"): source.array(name) for name in names}
    settings = {
        "vocab": len(weights["token.weight"]),
        "block": len(weights["position.weight"]),
        "layers": config.layers,
        "d": config.d,
        "heads": config.heads,
    }
    _gpt2_files().save_gpt2(weights, settings, goal)


def _import(source: Path, goal: Path) -> None:
    weights, settings = _gpt2_files().load_gpt2(source)
    shared = {name: settings[name] for name in ("block", "layers", "d", "heads")}
    config = Config(model="gpt", dtype=str(weights["token.weight"].dtype), **shared)
    meta = {"step": 0, "settings": settings, "config": asdict(config)}
    arrays = {f"model/{name}": np.asarray(array) for name, array in weights.items()}
    checkpoint.save(goal, arrays, meta)


def _gpt2_files() -> Any:
    try:
        return importlib.import_module("minipar.gpt2_files")
    except ImportError:
        raise UsageError(f"{FOREIGN} files cannot be read or written by this minipar.") from None


def layout_of(text: str) -> dict[str, int]:
    """dp=2,tp=2 as numbers.  Raises: UsageError."""
    try:
        pairs = [word.split("=") for word in text.split(",")]
        return {name.strip(): int(n) for name, n in pairs}
    except ValueError:
        raise UsageError(f"--layout {text}: say it like dp=2,tp=2.") from None
