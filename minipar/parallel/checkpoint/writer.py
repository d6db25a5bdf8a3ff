r"""Writing a checkpoint so that there is always a complete one, by any number of ranks.

    rank 0   begin    step-000500.part/
    all      write    step-000500.part/model/....npy, each on the disk before
                      step-000500.part/rank-3.json      what rank 3 has written
    rank 0   commit   step-000500.part/manifest.json    once all ranks have left their word
                      rename step-000500.part  ->  step-000500

Until the rename nobody takes the folder for a checkpoint, so it does not matter when the power
fails. What was left of an attempt is swept up by the next one. Ranks meet in the folder and not in
messages: so this can go on in threads, beside training.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minipar.array import Array, to_numpy
from minipar.errors import CheckpointError
from minipar.parallel.boxes import Box
from minipar.parallel.checkpoint import files, manifest
from minipar.parallel.checkpoint.manifest import Entry, Manifest, Shard


class Part(NamedTuple):
    """A box that a rank writes."""

    name: str
    shape: tuple[int, ...]  # of the whole array
    box: Box
    array: Array


def unfinished(folder: Path) -> Path:
    return folder.with_name(folder.name + ".part")


def begin(folder: Path) -> None:
    """Room for the parts of all ranks, and none for what crashes have left.  Raises: OSError."""
    part = unfinished(folder)
    for ending in ("part", "gone"):
        for left in folder.parent.glob(f"step-*.{ending}"):
            shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)


def write(
    folder: Path, rank: int, parts: Iterable[Part], stopped: Callable[[], bool] = lambda: False
) -> None:
    """Write these boxes, then the word that they are there.  Raises: OSError, CheckpointError."""
    place, done = unfinished(folder), []
    if not place.is_dir():
        raise CheckpointError(f"{place} is not there: it must be on a disk that all hosts see")
    for name, shape, box, array in parts:
        if stopped():
            raise CheckpointError(f"{place}: the run ended before all was written.")
        file = manifest.file_name(name, shape, box)
        (place / file).parent.mkdir(exist_ok=True)
        nbytes, digest = files.write(place / file, to_numpy(array))
        done.append((name, shape, array.dtype.name, (file, box, nbytes, digest, rank)))
    files.write_text(_word(folder, rank), json.dumps(done))


def all_there(folder: Path, ranks: int) -> bool:
    return all(_word(folder, rank).exists() for rank in range(ranks))


def commit(folder: Path, ranks: int, meta: Mapping[str, Any]) -> None:
    """Give the folder its name.  Raises: OSError, CheckpointError."""
    place = unfinished(folder)
    arrays: dict[str, Entry] = {}
    for rank in range(ranks):
        for name, shape, dtype, (file, box, *rest) in json.loads(_word(folder, rank).read_text()):
            shard = Shard(file, Box(*map(tuple, box)), *rest)
            entry = arrays.get(name, Entry(tuple(shape), dtype, ()))
            arrays[name] = entry._replace(shards=(*entry.shards, shard))
    arrays = {name: entry._replace(shards=tuple(sorted(entry.shards, key=lambda s: s.box)))
              for name, entry in sorted(arrays.items())}  # fmt: skip
    files.write_text(place / manifest.NAME, manifest.text_of(Manifest(arrays, dict(meta))))
    for rank in range(ranks):
        _word(folder, rank).unlink()
    for inside in (*(path for path in place.iterdir() if path.is_dir()), place):
        files.sync_folder(inside)
    _rename(place, folder)


def _rename(place: Path, folder: Path) -> None:
    """There is no moment without a complete one, under its name or .old (see `reader`)."""
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(place, folder)
    files.sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def drop(folder: Path) -> None:
    """Let go of an attempt that has failed; the last checkpoint stays."""
    shutil.rmtree(unfinished(folder), ignore_errors=True)


def remove(folder: Path) -> None:
    """A checkpoint is one until the moment it is none."""
    gone = folder.with_name(folder.name + ".gone")
    os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _word(folder: Path, rank: int) -> Path:
    return unfinished(folder) / f"rank-{rank}.json"
