r"""All ranks of a run write one checkpoint together, and each reads from one what it needs.

    saver = Saver(group)                               or Saver(group, background=True)
    with strategy.held() as held:
        saver.save(folder, held, {"step": 500})

    in the background     train ... save │ train ...                      │ wait
                          copy           └ a thread: write, hash, fsync ──┘ raises what went wrong

An attempt that fails on one rank fails on all, and leaves the checkpoint before it.

Left out on purpose: a copy of all that a rank writes is made for the background, and lives until it
is written. Copying page by page as training changes them would need the system's help (fork).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minipar.array import Array, on_host, to_numpy
from minipar.comm.group import Group
from minipar.errors import CheckpointError, said
from minipar.parallel.checkpoint import plan, writer
from minipar.parallel.checkpoint.reader import Checkpoint
from minipar.parallel.held import Held

LOOK_EVERY_S = 0.01


class Saver:
    """Of one run; collective over its ranks, and each waits for the save before."""

    def __init__(self, group: Group | None, background: bool = False) -> None:
        """group: None if this rank writes alone."""
        self.group, self.background = group, background
        self.rank, self.ranks = (0, 1) if group is None else (group.rank, group.size)
        self._plan: plan.Plan | None = None
        self._stop = threading.Event()
        self._under_way: tuple[Path, Task, Task] | None = None
        self.after: Callable[[Path], None] = lambda folder: None  # on rank 0, once it is complete

    def save(self, folder: Path, held: Sequence[Held], meta: Mapping[str, Any]) -> None:
        """Write it; in the background, begin to.  Raises: CheckpointError, on all ranks."""
        self.wait()
        if self._plan is None:
            self._plan = plan.agree(held, self.group)
        self._agree(folder, Task(partial(writer.begin, folder)).here() if not self.rank else None)
        parts = plan.parts(held, self._plan)
        if self.background:
            parts = [part._replace(array=_copied(part.array)) for part in parts]
        write = Task(partial(writer.write, folder, self.rank, parts, self._stop.is_set))
        commit = Task(partial(self._commit, folder, dict(meta)))
        self._under_way = folder, write, commit
        if self.background:
            write.start()
            if not self.rank:
                commit.start()
        else:
            write.here()
            self.wait()

    def wait(self) -> None:
        """Until the save under way is complete.  Raises: CheckpointError, on all ranks."""
        if self._under_way is None:
            return
        (folder, write, commit), self._under_way = self._under_way, None
        try:
            self._agree(folder, write.done())
        except CheckpointError:
            self._stop.set()  # somebody has left no word, so it would wait for ever
            commit.done()
            self._stop.clear()
            if not self.rank:
                writer.drop(folder)
            raise
        if not self.rank and not self.background:
            commit.here()
        self._agree(folder, commit.done())

    def abandon(self) -> None:
        """Let go of what is under way, alone: the run has failed."""
        self._stop.set()
        for task in (self._under_way or ())[1:]:
            task.done()

    def load(self, source: Checkpoint, held: Sequence[Held]) -> None:
        """Fill what this rank holds; the same bits in any layout.

        Raises: CheckpointError, before anything of this rank is changed.
        """
        if self._plan is None:
            self._plan = plan.agree(held, self.group)
        there = {name for name, entry in source.arrays.items() if 0 not in entry.shape}
        here = self._plan.names
        if missing := sorted(here - source.arrays.keys()):
            raise CheckpointError(f"{source.folder} has no {missing[0]}, which this model has.")
        if unknown := sorted(there - here):
            raise CheckpointError(f"{source.folder} has {unknown[0]}, which this model has not.")
        source.load(held)

    def _commit(self, folder: Path, meta: Mapping[str, Any]) -> None:
        while not writer.all_there(folder, self.ranks):
            if self._stop.wait(LOOK_EVERY_S):
                raise CheckpointError(f"{folder}: not all ranks have written their part.")
        try:
            writer.commit(folder, self.ranks, meta)
        except BaseException:
            writer.drop(folder)
            raise
        self.after(folder)

    def _agree(self, folder: Path, error: BaseException | None) -> None:
        """All go on, or all raise the same."""
        told = plan.gathered("" if error is None else said(error), self.group)
        if not any(told):
            return
        who = [f"{text.rstrip('.')} ({_ranks(told, text)})" for text in dict.fromkeys(told) if text]
        raise CheckpointError(
            f"{folder} cannot be written: {'; '.join(who)}. The last checkpoint is as it was."
        ) from error


def _ranks(told: Sequence[str], text: str) -> str:
    return "rank " + ", ".join(str(rank) for rank, other in enumerate(told) if other == text)


def _copied(array: Array) -> np.ndarray:
    return array.copy() if on_host(array) else to_numpy(array)


class Task:
    """Something to be done here, or in a thread of its own; what it raises is kept."""

    def __init__(self, does: Callable[[], None]) -> None:
        self._does = does
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self.here, daemon=True)
        self._thread.start()

    def here(self) -> BaseException | None:
        try:
            self._does()
        except Exception as error:
            self._error = error
        return self._error

    def done(self) -> BaseException | None:
        """Wait, and say what went wrong."""
        if self._thread is not None:
            self._thread.join()
        return self._error
