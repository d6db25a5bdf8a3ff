"""Where a run is to stop: conditions on what happens, as they are typed.

    rank 2, all_reduce        what rank 2 does in an all_reduce
    ring.py:14                what is called from that line
    bytes > 1e6               messages and calls of so many bytes
    sends                     any message that leaves

Conditions with commas between them hold together.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

from minipar.errors import UsageError
from minipar.events import Event

COMPARED = MappingProxyType(
    {
        ">": operator.gt,
        ">=": operator.ge,
        "<": operator.lt,
        "<=": operator.le,
        "==": operator.eq,
        "=": operator.eq,
    }
)
BYTES = re.compile(r"bytes\s*(>=|<=|==|=|>|<)\s*([\d.eE+]+)$")
RANK = re.compile(r"rank\s+(\d+)$")
LINE = re.compile(r"\S+:\d+$")
CALLS = (
    *("send", "barrier", "broadcast", "reduce", "all_reduce", "gather", "all_gather", "scatter"),
    *("reduce_scatter", "all_to_all", "split", "subgroup"),
)
BEGINS, SENDS, GETS = "begins", "sends", "gets"  # what a rank does in an event
DOES = (BEGINS, SENDS, GETS)


class Happening(NamedTuple):
    """Something that a rank does, at which a run can stop."""

    number: int  # in the order of the run, from 1
    rank: int  # who does it
    does: str  # begins a call, sends a message, or gets one
    event: Event

    @property
    def short(self) -> str:
        """For a narrow column, where it stands under its rank."""
        e = self.event
        if self.does == BEGINS:
            return f"began {e.op} #{e.sequence}"
        return (
            f"sent {e.nbytes} B to {e.peer}"
            if self.does == SENDS
            else f"got {e.nbytes} B from {e.rank}"
        )

    def __str__(self) -> str:
        e = self.event
        of = "" if e.op in ("send", "recv") else f" in {e.op} #{e.sequence}"
        by = f" by {e.algorithm}" if e.algorithm else ""
        if self.does == BEGINS:
            return f"rank {self.rank} begins {e.op} #{e.sequence} of {e.nbytes} B{by}"
        if self.does == SENDS:
            return f"rank {self.rank} sends {e.nbytes} B to rank {e.peer}{of}{by}"
        return f"rank {self.rank} gets {e.nbytes} B from rank {e.rank}{of}{by}"


class Break(NamedTuple):
    """Conditions, and how they were typed."""

    text: str
    tests: tuple[Callable[[Happening], bool], ...]

    def holds(self, happening: Happening) -> bool:
        return all(test(happening) for test in self.tests)


def parse(text: str, ranks: int) -> Break:
    """Raises: UsageError with what can be typed.  ranks: so many there are."""
    parts = [part.strip() for part in text.split(",")]
    for found in filter(None, map(RANK.match, parts)):
        if int(found[1]) >= ranks:
            raise UsageError(f"there is no rank {found[1]}; there are ranks 0 to {ranks - 1}.")
    return Break(", ".join(parts), tuple(_test(part) for part in parts))


def _test(part: str) -> Callable[[Happening], bool]:
    if found := RANK.match(part):
        rank = int(found[1])
        return lambda h: h.rank == rank
    if found := BYTES.match(part):
        with suppress(ValueError):  # 1e
            compare, n = COMPARED[found[1]], float(found[2])
            return lambda h: compare(h.event.nbytes, n)
    if LINE.match(part):
        return lambda h: h.event.site.endswith(part)
    if part in DOES:
        return lambda h: h.does == part
    if part in CALLS:
        return lambda h: h.event.op == part
    raise UsageError(
        f"{part!r} is no condition; there are: rank 2, all_reduce (or another call; of a sendrecv, "
        "send), sends, gets, begins, ring.py:14, bytes > 1e6, with commas between those that hold "
        "together."
    )
