"""What happened during a run: one record per message and per call of a group.

Every rank keeps its last records, always, in a ring that is cheap enough to stay on; `last` reads
them. Inside  with recording() as log: ...  all messages are kept, for counting and for drawing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, overload

from minipar import ambient

KEPT = 1024  # records of a rank
EVERYBODY = -1  # as `peer`: the whole call, not one of its messages


class Event(NamedTuple):
    """One message that left a rank, or one call."""

    rank: int  # the sender's rank in the world
    peer: int  # the receiver's rank in the world, or EVERYBODY
    op: str  # the call that it is part of, e.g. "all_reduce"
    sequence: int  # that call's number in its group
    nbytes: int  # payload, without the header
    site: str  # file:line of the call
    algorithm: str = ""  # which one carried the call out, e.g. "ring"; none for send
    group: int = 0  # the group's number, 0 for all ranks
    begin: int = 0  # nanoseconds of `Group.now_ns`
    end: int = 0  # when the message could be forgotten, or the call returned; 0: not yet


class Log(Sequence[Event]):
    """The messages of one `recording` block, in the order in which they left."""

    calls = False  # whether it takes whole calls, too

    def __init__(self) -> None:
        self._records: list[list[Any]] = []

    def take(self, record: list[Any]) -> None:
        self._records.append(record)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...

    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        if isinstance(index, slice):
            return [Event(*record) for record in self._records[index]]
        return Event(*self._records[index])


class Taker(Protocol):
    """Who is told of every message while it is added to a `Recorder`; of whole calls if `calls`."""

    calls: bool

    def take(self, record: list[Any]) -> None: ...


class Recorder:
    """The last KEPT records of one rank.

    A record is a list with the fields of `Event`: whoever began it sets the last one at the end.
    """

    def __init__(self) -> None:
        self._ring: list[list[Any]] = [[]] * KEPT
        self._count = 0
        self.logs: tuple[Taker, ...] = ()  # those that are being kept at the moment
        self.tape: Any = None  # a spans.Tape, one of these logs, while the rank is traced

    def take(self, record: list[Any]) -> list[Any]:
        """Keep a record: a list with the fields of an Event."""
        self._ring[self._count % KEPT] = record
        self._count += 1
        for log in self.logs:
            if record[1] != EVERYBODY or log.calls:
                log.take(record)
        return record

    def last(self, n: int = KEPT) -> list[Event]:
        """The last n records, in the order in which they began."""
        n = min(n, self._count, KEPT)
        return [Event(*self._ring[i % KEPT]) for i in range(self._count - n, self._count)]

    def add_log(self, log: Taker) -> None:
        self.logs = (*self.logs, log)

    def remove_log(self, log: Taker) -> None:
        self.logs = tuple(other for other in self.logs if other is not log)


@contextmanager
def recording() -> Iterator[Log]:
    """The log of the messages which this rank sends inside the block."""
    log = Log()
    with telling(log):
        yield log


@contextmanager
def telling(log: Taker) -> Iterator[None]:
    """Inside, the log takes a record of each message that this rank sends."""
    recorder, token = ambient.recorder.get(), None
    if recorder is None:
        recorder = Recorder()
        token = ambient.recorder.set(recorder)
    recorder.add_log(log)
    try:
        yield
    finally:
        recorder.remove_log(log)
        if token is not None:
            ambient.recorder.reset(token)


def last(n: int = KEPT) -> list[Event]:
    """The last n records of this rank; none outside of a run."""
    recorder = ambient.recorder.get()
    return [] if recorder is None else recorder.last(n)
