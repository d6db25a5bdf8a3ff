"""What a rank does and when, while it is traced: spans of time with a kind and a name.

    with span("optimizer"):                      a look-up, and nothing more, if nobody traces
        strategy.step()

    forward      blocks.0 [ attention ][ mlp ]   modules, one inside the other, by their names
    backward     blocks.0 [    mlp    ][ attention ]      the vjps of what a module has computed
    wait                      [ rank 1 ]                  a call that another rank keeps waiting

A `Tape` holds the spans of one rank, beside the records of its messages (events.py); `tracing`
(comm/tracing.py) puts one on and writes it to a file. Kinds are words of this file's users:
forward, backward, recompute, optimizer, clip, reduce, data, evaluate, checkpoint, wait.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

from minipar import ambient
from minipar.alive import KINDS, Alive, in_step
from minipar.events import EVERYBODY

NOTHING = nullcontext()
MODULES = MappingProxyType({"": "forward", "backward": "recompute"})  # what they do in a phase


class Span(NamedTuple):
    """Something that lasts; times in nanoseconds of `Group.now_ns`."""

    kind: str
    name: str  # of a module, or whom a wait is for; may be empty
    begin: int
    end: int
    micro: int = -1  # the micro-batch; -1: none
    step: int = -1  # the step of the training, from 0; -1: none
    depth: int = 0  # in how many other spans of the rank it lies
    second: bool = False  # whether the rank's second thread did it


class Mark(NamedTuple):
    """Something that happens at one moment: of parameter servers, a clock or a version.

    on any rank    queued    it has called a collective that its second thread will carry out;
                             whom: the group's number; value: the call's
    on a worker    clock     it is at this clock now, of its own
                   pulled    weights of this version have come; whom: from which server
    on a server    bound     the rule: clocks that a worker may be ahead of the slowest; -1: any
                   version   this is the version after a push; whom: whose; lag: its staleness
                   given     the same, after somebody has replaced weights
                   held      a worker has to wait; value: for whom; lag: its clocks ahead of that
                   granted   it need not wait any more
                   gone      a worker is off the clock; value: it was at this one
    """

    kind: str
    at: int
    whom: int  # a rank of the world
    value: int
    lag: int = -1  # -1: none


class Tape:
    """The spans of one rank so far, and where it is at the moment."""

    calls = True  # it takes records of whole calls, too

    def __init__(
        self, clock: Callable[[], int], bytes_used: Callable[[], int] | None = None
    ) -> None:
        """bytes_used: asked whenever an outermost span ends; None: nobody knows."""
        self.clock, self._bytes_used = clock, bytes_used
        self.rows: list[list[Any]] = []  # fields of Span, which takes six times as long to make
        self.collectives: list[list[Any]] = []  # records of whole calls: fields of events.Event
        self.apart: list[bool] = []  # of each call, whether the second thread made it
        self.messages: list[list[Any]] = []  # of those that the rank sent
        self.receipts: list[list[Any]] = []  # of those that it got
        self.marks: list[Mark] = []
        self.memory: list[tuple[int, int]] = []  # when, and how many bytes the rank used then
        self.alive, self.held = Alive(), list[tuple[int, ...]]()  # when, and bytes by alive.KINDS
        self.names: dict[int, str] = {}  # of modules, by id
        self.groups: dict[int, tuple[str, tuple[int, ...]]] = {}  # by number: axis, world ranks
        self.step = self.micro = -1
        self.phase, self.phase_begin, self.layer, self.depth = "", 0, "", 0
        self.in_vain = ""  # whom the last wait was for, if it ended in an error
        self._thread = threading.get_ident()

    @property
    def spans(self) -> list[Span]:
        return [Span(*row) for row in self.rows]

    def take(self, record: list[Any]) -> None:
        """As an events.Taker: keep the record of a message, or of a whole call."""
        if record[1] == EVERYBODY:
            self.collectives.append(record)
            self.apart.append(threading.get_ident() != self._thread)
        else:
            self.messages.append(record)

    def add(self, kind: str, name: str, begin: int, end: int) -> None:
        """A span that is over; whatever has been going on since before it lies around it."""
        second = threading.get_ident() != self._thread
        depth = 0 if second else self.depth
        self.rows.append([kind, name, begin, end, self.micro, self.step, depth, second])

    def add_backward(self, layer: str, begin: int, end: int) -> None:
        """As `add`; what follows a span of the same layer makes that longer."""
        if self.rows:
            kind, name, before, _, _, _, depth, _ = last = self.rows[-1]
            same = name == layer and kind == "backward" and depth == self.depth
            if same and before >= self.phase_begin:
                last[3] = end
                return
        self.add("backward", layer, begin, end)

    def look(self, when: int) -> None:
        """Note what is alive, if that has changed."""
        if self.alive.changed:
            self.alive.changed = False
            self.held.append((when, *self.alive.nbytes))

    def sample(self) -> None:
        """Note how much memory is in use."""
        if self._bytes_used is not None:
            self.memory.append((self.clock(), self._bytes_used()))


class _Open:
    """A span that goes on until the block ends."""

    def __init__(self, tape: Tape, kind: str, name: str, micro: int) -> None:
        self.tape, self.kind, self.name, self.micro = tape, kind, name, micro

    def __enter__(self) -> None:
        tape = self.tape
        self.before = tape.phase, tape.micro, tape.phase_begin
        tape.phase, tape.depth = self.kind, tape.depth + 1
        if self.micro >= 0:
            tape.micro = self.micro
        self.begin = tape.phase_begin = tape.clock()
        tape.look(self.begin)

    def __exit__(self, *_: object) -> None:
        tape = self.tape
        tape.depth -= 1
        tape.add(self.kind, self.name, self.begin, end := tape.clock())
        tape.look(end)
        tape.phase, tape.micro, tape.phase_begin = self.before
        if not tape.depth:
            tape.sample()


def tape() -> Tape | None:
    """That of this rank, if it is traced."""
    recorder = ambient.recorder.get()
    return None if recorder is None else recorder.tape


def span(kind: str, name: str = "", micro: int = -1) -> AbstractContextManager[None]:
    """Around a part of the work that is to be seen in a trace.

    micro: the micro-batch it is for; -1: that of the span around it.
    """
    running = tape()
    return NOTHING if running is None else _Open(running, kind, name, micro)


def mark(kind: str, whom: int, value: int, lag: int = -1) -> None:
    """Something has happened that is to be seen in a trace: see `Mark`."""
    running = tape()
    if running is not None:
        running.marks.append(Mark(kind, running.clock(), whom, value, lag))


def know(module: Any) -> None:
    """Call the modules of a model by their names in it, and not by their classes."""
    running = tape()
    if running is not None:
        running.names.update((id(part), name) for name, part in module.named_modules())


def hold(kind: str, *things: Any) -> None:
    """This rank holds the arrays in these things (alive.KINDS): tensors, and trees of them."""
    running = tape()
    if running is not None:
        running.alive.take(KINDS.index(kind), things)


def name_group(group: Any, axis: str) -> None:
    """Say along which axis of the mesh a group lies."""
    running = tape()
    if running is not None and group.size > 1:
        running.groups[group.ident] = axis, group.world_ranks


def at_step(step: int) -> None:
    """What follows belongs to that step of the training."""
    running = tape()
    if running is not None:
        running.step = step


def layered(call: Callable[..., Any]) -> Callable[..., Any]:
    """A module's __call__ that is a span if somebody traces."""

    @functools.wraps(call)
    def called(module: Any, *args: Any, **options: Any) -> Any:
        recorder = ambient.recorder.get()
        if recorder is None or recorder.tape is None:
            return call(module, *args, **options)
        tape: Tape = recorder.tape
        name = tape.names.get(id(module)) or type(module).__name__
        outer, tape.layer, begin = tape.layer, name, tape.clock()
        tape.depth += 1
        try:
            return call(module, *args, **options)
        finally:
            tape.layer, tape.depth = outer, tape.depth - 1
            tape.add(MODULES.get(tape.phase, tape.phase), name, begin, end := tape.clock())
            tape.look(end)

    return called


class Watcher:
    """As the value of `ambient.grad_enabled`: times the vjp of every node that is recorded."""

    def __init__(self, tape: Tape, outer: Any) -> None:
        """outer: the value that it takes the place of."""
        self._tape, self._outer = tape, outer
        self.labels = getattr(outer, "labels", None)

    def watch(self, node: Any) -> None:
        if self._outer is not True:
            self._outer.watch(node)
        vjp, tape, layer = node.vjp, self._tape, self._tape.layer
        clock = tape.clock
        if in_step(tape.step):
            tape.alive.node(node)

        def timed(dz: Any, wanted: tuple[bool, ...]) -> Sequence[Any]:
            begin = clock()
            tape.depth += 1
            try:
                return vjp(dz, wanted)
            finally:
                tape.depth -= 1
                tape.add_backward(layer, begin, end := clock())
                tape.look(end)

        timed.__qualname__ = getattr(vjp, "__qualname__", "?")  # by which the op is named
        node.vjp = timed
