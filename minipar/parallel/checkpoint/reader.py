"""Reading a checkpoint, by whoever needs whichever part of it.

    source = Checkpoint("runs/gpt-1/checkpoints/step-001500")
    source.array("model/up.weight")                     all of an array
    source.fill([("model/up.weight", box, view), ...])  boxes of arrays, into memory that is there

A file is mapped and its hash compared when it is first touched; files that nobody asks for are not
read. `fill` touches all that it needs before it changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from minipar.array import Array, array_module
from minipar.errors import CheckpointError
from minipar.parallel.boxes import Box, whole
from minipar.parallel.checkpoint import files, manifest
from minipar.parallel.checkpoint.manifest import Entry, Shard, dtype_of
from minipar.parallel.held import Held, views

Wanted = tuple[str, Box, Array]  # an array, a box of it, and where its numbers go


class Checkpoint:
    """The arrays of a folder; `meta` is what was saved with them."""

    def __init__(self, folder: str | Path) -> None:
        """Reads the manifest only.  Raises: CheckpointError."""
        self.folder = _settled(Path(folder))
        found = manifest.read(self.folder)
        self.arrays, self.meta = found.arrays, found.meta
        self._verified: set[str] = set()

    def entry(self, name: str) -> Entry:
        if name not in self.arrays:
            raise CheckpointError(f"{self.folder} has no {name}.")
        return self.arrays[name]

    def box(self, shard: Shard, dtype: str) -> np.ndarray:
        """What a file holds, in the file; its hash is compared the first time.

        Not kept open: each open file takes one of the descriptors that a process may have.
        Raises: CheckpointError.
        """
        array = files.mapped(self.folder, shard, dtype, verify=shard.file not in self._verified)
        self._verified.add(shard.file)
        return array

    def array(self, name: str) -> np.ndarray:
        """A copy of the whole array."""
        entry = self.entry(name)
        self._touch([(name, whole(entry.shape))])  # before memory is taken for it
        array = np.empty(entry.shape, dtype_of(entry.dtype))
        self.fill([(name, whole(entry.shape), array)])
        return array

    def fill(self, wanted: Iterable[Wanted]) -> None:
        """Copy boxes of arrays into views.  Raises: CheckpointError, before any is changed."""
        wanted = list(wanted)
        self._touch((name, box) for name, box, _ in wanted)
        for name, box, view in wanted:
            for shard in self._needed(name, box):
                part = box.meet(shard.box)
                assert part is not None
                numbers = self.box(shard, self.arrays[name].dtype)[part.inside(shard.box)]
                view[part.inside(box)] = array_module(view).asarray(numbers)

    def fits(self, held: Iterable[Held]) -> None:
        """Whether arrays have the shape and dtype here that they have there.

        Raises: CheckpointError.
        """
        for h in held:
            entry = self.entry(h.name)
            here, there = (h.array.dtype.name, h.shape), (entry.dtype, entry.shape)
            if here != there:
                raise CheckpointError(
                    f"{self.folder}: {h.name} is {there[0]}{list(there[1])} there, and "
                    f"{here[0]}{list(here[1])} in this model. It must be the same model."
                )

    def load(self, held: Iterable[Held]) -> None:
        """Fill all that a rank holds.  Raises: CheckpointError, before anything is changed."""
        held = list(held)
        self.fits(held)
        self.fill((h.name, box, view) for h in held for box, view in views(h))

    def problems(self) -> Iterator[str]:
        """What is wrong with the files: all are read; and which ones are none of its own."""
        named = {manifest.NAME}
        for entry in self.arrays.values():
            for shard in entry.shards:
                named.add(shard.file)
                try:
                    files.mapped(self.folder, shard, entry.dtype, verify=True)
                except CheckpointError as error:
                    yield str(error)
        for path in sorted(self.folder.rglob("*")):
            if not path.is_dir() and path.relative_to(self.folder).as_posix() not in named:
                yield f"{path} is not in the manifest."

    def _touch(self, wanted: Iterable[tuple[str, Box]]) -> None:
        for name, box in wanted:
            for shard in self._needed(name, box):
                if shard.file not in self._verified:
                    self.box(shard, self.arrays[name].dtype)

    def _needed(self, name: str, box: Box) -> list[Shard]:
        return [shard for shard in self.entry(name).shards if box.meet(shard.box) is not None]


def _settled(folder: Path) -> Path:
    """The folder, or what it was if a crash came between the two renames that replace it."""
    old = folder.with_name(folder.name + ".old")
    return old if old.exists() and not folder.exists() else folder
