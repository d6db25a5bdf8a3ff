"""What a rank remembers of its calls, for the error that may come.

The ranks' call sites may part without an error: a root and the others may branch, so calls that
agree in all but their line are legal. But a call that one rank skipped is paired with a later one
of the same shape, and the numbers are wrong from there on:

    rank 0:  all_reduce #12 at train.py:40      rank 1:  all_reduce #12 at train.py:44

Nobody can tell the two cases apart at once. So the first such pair of each group is remembered, and
told when the job ends in an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from minipar.comm.frame import Call

LAST_CALLS = 64
MOST_GROUPS = 4


class Parting(NamedTuple):
    """A call that two ranks of the world made from different lines."""

    group: int
    sequence: int
    op: str
    sites: tuple[tuple[int, str], ...]  # (rank, file:line) of both

    def __str__(self) -> str:
        of_group = f" of group {self.group}" if self.group else ""
        where = ", ".join(f"rank {rank} at {site}" for rank, site in sorted(self.sites))
        return (
            f"The ranks' call sites first parted at {self.op} #{self.sequence}{of_group}: {where}. "
            "(Legal if meant so; a call that one rank skipped shows like this.)"
        )


class History:
    """Of one rank, in all its groups."""

    def __init__(self) -> None:
        self._last: deque[Call] = deque(maxlen=LAST_CALLS)
        self.partings: dict[int, Parting] = {}

    def begin(self, call: Call) -> None:
        """Remember a collective call that this rank makes."""
        self._last.append(call)

    def other_than(self, theirs: Call) -> Call | None:
        """What this rank did in the place of that call, if it was not long ago."""
        own = next((call for call in self._last if call[:2] == theirs[:2]), None)
        return None if own is None or own[:4] == theirs[:4] else own

    def part(self, rank: int, mine: Call, other: int, theirs: Call) -> None:
        """Remember that `other` made the same call elsewhere, if that is new in this group."""
        if mine.group not in self.partings and len(self.partings) < MOST_GROUPS:
            sites = ((rank, mine.site), (other, theirs.site))
            self.partings[mine.group] = Parting(mine.group, mine.sequence, mine.op, sites)


def first_partings(histories: Iterable[Iterable[Parting]]) -> tuple[str, ...]:
    """One line for each group whose call sites parted.  histories: the partings of each rank."""
    first: dict[int, Parting] = {}
    for parting in sorted(parting for history in histories for parting in history):
        first.setdefault(parting.group, parting)
    return tuple(map(str, first.values()))
