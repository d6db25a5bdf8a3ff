"""What happened during a run, one record per message, for counting and for drawing.

Nothing is recorded unless somebody asks:  with recording() as log: ...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from minipar import ambient


class Event(NamedTuple):
    """One message that left a rank."""

    rank: int  # the sender's rank in the world
    peer: int  # the receiver's rank in the world
    op: str  # the call that it is part of, e.g. "all_reduce"
    sequence: int  # that call's number in its group
    nbytes: int  # payload, without the header
    site: str  # file:line of the call
    algorithm: str = ""  # which one carried the call out, e.g. "ring"; none for send
    group: int = 0  # the group's number, 0 for all ranks


@contextmanager
def recording() -> Iterator[list[Event]]:
    """The list that the messages which this rank sends inside the block are appended to."""
    log: list[Event] = []
    token = ambient.recorder.set(log)
    try:
        yield log
    finally:
        ambient.recorder.reset(token)
