"""Hold a run at every communication, ask what to do, and go back by running it again.

Ranks of the `local` backend pass a baton: while one is held, all are. So the prompt simply runs in
the rank at hand, at the moment when it begins a call, sends a message or gets one; the others stand
still in their own waits, and their frames can be looked at. Runs are reproducible to the event, so
the way back to event n is: end the run, begin again, and stop at n.

    Session     the runs, one after another, and where the next one is to stop
    Stepping    one run: counts what happens, stops where it is asked to
"""

from __future__ import annotations

import runpy
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import minipar
from minipar import ambient
from minipar.comm.cluster import Cluster
from minipar.comm.failure import Failure
from minipar.comm.group import Group
from minipar.comm.launch import run_threads
from minipar.comm.local import LocalWorld
from minipar.comm.script import LabelledOutput
from minipar.errors import UsageError
from minipar.events import EVERYBODY, Event
from minipar.spans import Tape
from minipar.stepping.breaks import BEGINS, GETS, SENDS, Break, Happening
from minipar.stepping.view import Row, columns, place_of, users_frame
from minipar.trace.chunks import MOST_RANKS, states_by_message

COMM = str(Path(minipar.__file__).parent / "comm")

Prompt = Callable[["Stepping"], None]  # sets where to stop next, or raises Leave


class Leave(BaseException):
    """Ends the run at hand: to begin again, or for good."""


class Stepping:
    """One run of a script, held at what happens in it."""

    def __init__(self, path: str, ranks: int, prompt: Prompt, stop_at: int, cluster: Any) -> None:
        """stop_at: the first happening at which to ask."""
        self.path, self.ranks, self.stop_at = str(Path(path).resolve()), ranks, stop_at
        self.silent_until = 0  # a happening before which what the script prints was seen already
        self.world = LocalWorld(ranks, cluster=cluster)
        self.breaks: list[Break] = []
        self.only_rank: int | None = None  # stop only at what this rank does
        self.to_break = False  # stop only where a break holds
        self.now: Happening | None = None
        self.count = 0
        self.last = ["nothing yet"] * ranks
        self.failure: BaseException | None = None
        self.failed_rank = 0
        self.notes: tuple[str, ...] = ()  # about the failure
        self._prompt = prompt
        self._threads: list[int | None] = [None] * ranks
        self._over = [False] * ranks
        self._leaving = False
        self._held: FrameType | None = None  # from where the prompt is asked; what it calls is ours
        self._got: Counter[tuple[int, int, int]] = Counter()  # by rank, group and number of a call

    def run(self) -> None:
        """From the beginning to the end, or until the prompt leaves it."""
        _, failed = run_threads(self._script, self.ranks, (), self.world)
        if failed is not None and not isinstance(failed[1], Leave) and not self._leaving:
            self.failed_rank, self.failure, self.notes = failed

    def _script(self, group: Group) -> None:
        recorder = ambient.recorder.get()
        recorder.tape = tape = _StoppingTape(self, group)
        recorder.add_log(tape)
        self._threads[group.rank] = threading.get_ident()
        try:
            if group.rank == 0 and self.stop_at == 0:
                self._hold()
            runpy.run_path(self.path, run_name="__main__")
        finally:
            self._over[group.rank] = True

    def happens(self, rank: int, does: str, event: Event) -> None:
        """Called in the rank's own thread, which has the baton."""
        if self._leaving:
            raise Leave
        self.count += 1
        self.now = happening = Happening(self.count, rank, does, event)
        self.last[rank] = happening.short
        if does == GETS:
            self._got[rank, event.group, event.sequence] += 1
        if self._stops(happening):
            self._hold()

    def _hold(self) -> None:
        """Ask, in the rank's own thread, so that the run stands still meanwhile."""
        self._held = sys._getframe()
        try:
            self._prompt(self)
        except BaseException:
            self._leaving = True
            raise
        finally:
            self._held = None

    def _stops(self, h: Happening) -> bool:
        if h.number < self.stop_at:
            return False
        if self.to_break:
            return any(b.holds(h) for b in self.breaks)
        return self.only_rank is None or h.rank == self.only_rank

    def how_it_failed(self) -> str:
        """The failing rank's traceback, and what is known beside it; "" if it has not failed."""
        if self.failure is None:
            return ""
        failure = Failure.of(self.failed_rank, self.failure)
        told = (f"; rank {self.failed_rank} has failed:", failure.traceback, *self.notes)
        return "\n".join(filter(None, told))

    # -- what can be seen while it is held -----------------------------------------------------

    def frame(self, rank: int) -> FrameType | None:
        """The user's frame on that rank; None before its beginning and after its end."""
        return None if self._over[rank] else users_frame(self._innermost(rank), self.path)

    def _innermost(self, rank: int) -> FrameType | None:
        ident = self._threads[rank]
        if ident == threading.get_ident() and self._held is not None:
            return self._held
        return None if ident is None else sys._current_frames().get(ident)

    def view(self, width: int) -> str:
        """The ranks side by side."""
        rows = []
        for rank in range(self.ranks):
            frame = self.frame(rank)
            place, line = ("", "") if frame is None else place_of(frame)
            here = self.now is not None and self.now.rank == rank and not self._over[rank]
            rows.append(Row(rank, here, place, line, self.last[rank], self._waits(rank, here)))
        return columns(rows, width)

    def _waits(self, rank: int, here: bool) -> str:
        if self._over[rank]:
            fate = self.world.fates[rank]
            if fate.startswith("was lost"):
                return fate
            return f"has {fate}" if fate.startswith("raised") else "has returned"
        if self._threads[rank] is None:
            return "has not begun"
        if here:
            return "is held here"
        awaited = self.world._awaited(rank)
        if awaited is None:
            return "is about to run"
        return f"waits for {'any rank' if awaited[0] < 0 else f'rank {awaited[0]}'}"

    def evaluate(self, text: str) -> list[Any]:
        """The expression on every rank, or the exception that it raises there."""
        found: list[Any] = []
        for rank in range(self.ranks):
            frame = self.frame(rank)
            if frame is None:
                found.append(NotHere(self._waits(rank, False)))
                continue
            try:
                found.append(eval(text, frame.f_globals, frame.f_locals))  # typed by who debugs
            except Exception as error:
                found.append(NotHere(f"{type(error).__name__}: {error}"))
        return found

    def buffers(self) -> list[Any]:
        """On every rank the array that the collective under way works in; None where there is none.

        Algorithms call it `buf`: comm/ring... are functions of (link, buf).
        """
        return [self._buffer(rank) for rank in range(self.ranks)]

    def _buffer(self, rank: int) -> Any:
        frame = self._innermost(rank)
        while frame is not None and frame.f_code.co_filename != self.path:
            if frame.f_code.co_filename.startswith(COMM) and "buf" in frame.f_locals:
                return frame.f_locals["buf"]
            frame = frame.f_back
        return None

    def contributions(self) -> np.ndarray | None:
        """Whose parts are in which chunk on which rank, inside a collective; None outside one."""
        if self.now is None or self.now.event.group or self.ranks > MOST_RANKS:
            return None
        e = self.now.event
        try:
            states = states_by_message(e.op, e.algorithm, self.ranks)
        except UsageError:
            return None
        rows = []
        for rank in range(self.ranks):
            got = self._got[rank, e.group, e.sequence]
            in_hand = self.now.rank == rank and self.now.does == GETS  # come, and not yet added
            rows.append(states[rank][max(0, min(got - in_hand, len(states[rank]) - 1))])
        return np.stack(rows)


class NotHere(Exception):
    """Why there is no value on a rank."""


class _Receipts(list[list[Any]]):
    """The receipts of a tape, each of which is a happening."""

    def __init__(self, stepping: Stepping) -> None:
        super().__init__()
        self._stepping = stepping

    def append(self, record: list[Any]) -> None:
        self._stepping.happens(record[1], GETS, Event(*record))


class _StoppingTape(Tape):
    """A tape that keeps nothing, and lets the stepping know."""

    def __init__(self, stepping: Stepping, group: Group) -> None:
        super().__init__(group.now_ns)
        self._stepping = stepping
        self.receipts = _Receipts(stepping)

    def take(self, record: list[Any]) -> None:
        does = BEGINS if record[1] == EVERYBODY else SENDS
        self._stepping.happens(record[0], does, Event(*record))

    def add(self, kind: str, name: str, begin: int, end: int) -> None:
        """Spans are not kept."""


class Session:
    """Runs of a script, one after another, until nobody wants to go back any more."""

    def __init__(
        self,
        path: str,
        arguments: Sequence[str],
        ranks: int,
        prompt: Prompt,
        cluster: Cluster | None = None,
    ) -> None:
        """prompt: asked whenever a run is held, and when it is over."""
        self.path, self.arguments, self.ranks = path, list(arguments), ranks
        self.prompt, self.cluster = prompt, cluster
        self.again: int | None = 0  # where the next run is to stop; None: there is none
        self.furthest = 0  # happening that a run has come to

    def run(self) -> Stepping:
        """All of them; the last one.  Raises: MiniparError, what the script raised."""
        while True:
            assert self.again is not None
            sys.argv[:] = [self.path, *self.arguments]
            sys.path.insert(0, str(Path(self.path).resolve().parent))
            stepping = Stepping(self.path, self.ranks, self._ask, self.again, self.cluster)
            self.again, stepping.silent_until = None, self.furthest
            try:
                with _Silence(stepping):
                    stepping.run()
            finally:
                sys.path.pop(0)
                self.furthest = max(self.furthest, stepping.count)
            if self.again is None and not stepping._leaving:
                self._at_the_end(stepping)
            if self.again is None:
                return stepping

    def _ask(self, stepping: Stepping) -> None:
        self.prompt(stepping)
        if self.again is not None:
            raise Leave

    def _at_the_end(self, stepping: Stepping) -> None:
        stepping.now = None
        try:
            self.prompt(stepping)
        except Leave:
            return


class _Silence:
    """Inside, what the script prints is dropped until the run has come to where none was before."""

    def __init__(self, stepping: Stepping) -> None:
        self._stepping, self._output = stepping, LabelledOutput(stepping.ranks)

    def __enter__(self) -> None:
        self._output.__enter__()
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Quiet(stream, self._stepping) for stream in self._streams)

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._streams
        self._output.__exit__()


class _Quiet:
    """A stream that opens when the run gets further than the ones before."""

    def __init__(self, stream: Any, stepping: Stepping) -> None:
        self._stream, self._stepping = stream, stepping

    def write(self, text: str) -> int:
        if self._stepping.count < self._stepping.silent_until:
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
