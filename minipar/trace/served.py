"""What a trace says of parameter servers: clocks, versions, and staleness.

    worker 0   clock    0 ──── 1 ──── 2 ──── 3 (waits) ──────────── 4       its steps
    worker 1   clock    0 ────────────────────────────── 1 ─────────
    server 2   version  0 ──── 1 ──── 2 ──── 3 ───────── 4 ──────── 5       a push each

All of it is read from the marks (spans.py): the clock of a worker is its own, the version is the
server's, and each of these has its own idea of now, apart by as much as two clocks (`doubt_ns`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from minipar.errors import UsageError
from minipar.spans import Mark
from minipar.trace.trace_file import Trace

ANY = -1  # as a bound: async, a worker may be ahead by any number of clocks
COLOURS = (  # of workers, in turn: distinct for the colour-blind, too
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#8C510A", "#7570B3", "#444444", "#C29B00"),
)
Steps = Sequence[tuple[int, int]]  # when, rising, and the value from then on


class Served(NamedTuple):
    """Of a whole run. All numbers of workers and servers are ranks of the world."""

    bound: int  # clocks that a worker may be ahead of the slowest; 0 is sync; ANY
    clocks: dict[int, Steps]  # by worker; one that was killed has left none
    versions: dict[int, Steps]  # by server
    gone: dict[int, int]  # by worker: when it was off the clock

    @property
    def workers(self) -> int:
        """How many there were: they are the ranks before the servers."""
        return min(self.versions)

    def slowest(self) -> Steps:
        """The lowest clock of all who are on it, whenever that changes."""
        changes: list[tuple[int, int, int | None]] = [(at, w, None) for w, at in self.gone.items()]
        changes += [(at, w, clock) for w, steps in self.clocks.items() for at, clock in steps]
        present: dict[int, int] = {}
        found: list[tuple[int, int]] = []
        for at, worker, clock in sorted(changes, key=lambda change: change[0]):
            present.pop(worker, None)
            if clock is not None:
                present[worker] = clock
            lowest = min(present.values(), default=None)
            if lowest is not None and (not found or found[-1][1] != lowest):
                found.append((at, lowest))
        return found


def is_served(trace: Trace) -> bool:
    """Whether there are parameter servers in it."""
    return any(mark.kind == "bound" for rank in trace.ranks for mark in rank.marks)


def lacks(trace: Trace) -> str:
    """Why there is nothing to draw; empty if there is."""
    if is_served(trace):
        return ""
    return (
        "there are no clocks of parameter servers in this trace: it is of a run without --ps, or "
        "all servers were killed."
    )


def served(trace: Trace) -> Served:
    """Raises: UsageError if no server has left its marks."""
    if reason := lacks(trace):
        raise UsageError(reason)
    marks = [(rank.rank, mark) for rank in trace.ranks for mark in rank.marks]
    servers = sorted({rank for rank, mark in marks if mark.kind == "bound"})
    workers = sorted({rank for rank, mark in marks if mark.kind == "clock"})
    gone: dict[int, int] = {}
    for _, mark in marks:
        if mark.kind == "gone" and mark.whom in workers:
            gone[mark.whom] = max(mark.at, gone.get(mark.whom, 0))
    return Served(
        next(mark.value for _, mark in marks if mark.kind == "bound"),
        {w: [(m.at, m.value) for m in trace.ranks[w].marks if m.kind == "clock"] for w in workers},
        {s: _versions(trace.ranks[s].marks) for s in servers},
        gone,
    )


def pushes(trace: Trace, begin: int, end: int) -> dict[int, Counter[int]]:
    """How many pushes of each worker had which staleness when the first server applied them.

    Other servers have applied the same pushes, perhaps in another order.
    """
    first = min(served(trace).versions)
    found: dict[int, Counter[int]] = {}
    for mark in trace.ranks[first].marks:
        if mark.kind == "version" and begin <= mark.at < end:
            found.setdefault(mark.whom, Counter())[mark.lag] += 1
    return dict(sorted(found.items()))


def most_stale(bound: int, workers: int) -> int | None:
    """The most updates that a push can have missed; None: any number.

    A worker at clock c gets weights with all pushes of clocks up to c - s in them. Until its next
    push the others can come to clock c + s + 1, and no farther: 2s + 1 pushes each. Of a round of
    sync (s = 0) none is applied before the last.
    """
    return None if bound == ANY else (2 * bound + 1) * (workers - 1) if bound else 0


def value_at(steps: Steps, when: int) -> int:
    """The value at that time; 0 before the first."""
    place = bisect_right(steps, when, key=lambda step: step[0])
    return steps[place - 1][1] if place else 0


def _versions(marks: Sequence[Mark]) -> Steps:
    return [(m.at, m.value) for m in marks if m.kind in ("version", "given")]
