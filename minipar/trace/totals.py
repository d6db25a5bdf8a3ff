"""What a trace adds up to: how long each rank computed, moved bytes and waited, and how much went.

    main thread    [ forward ][    backward    ][ reduce ][ optimizer ]
      waits                                       [ ]
    second thread                [ all_reduce ][  all_reduce ]
                                 └─ overlapped ┘

A moment counts once: as waiting if the rank waits then, else as communication if it is in a
collective, else as computation if it is in any other span. What the second thread does meanwhile is
overlapped, as far as the first one computes. In virtual time it is known when a message is on the
wire: who waits for that, waits no longer, but moves bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from minipar.errors import UsageError
from minipar.events import Event
from minipar.trace.trace_file import RankTrace, Trace

Intervals = np.ndarray  # [n, 2], in order, no two of them touch


class Shares(NamedTuple):
    """What one rank did in a window of time, in ns."""

    computing: int
    moving: int
    waiting: int
    overlapped: int  # of what the second thread moved, while the first one computed
    length: int


def window_of(
    trace: Trace, step: int | None = None, last_ms: float | None = None
) -> tuple[int, int]:
    """When the first rank began that step and the last one ended it, or the last moments; the
    whole run if neither is asked for.  Raises: UsageError.
    """
    if last_ms is not None:
        if not 0 < last_ms < float("inf"):
            raise UsageError(f"--last {last_ms:g}: a number of milliseconds above 0.")
        return max(0, trace.end - int(last_ms * 1e6)), trace.end
    if step is None:
        return 0, trace.end
    spans = [
        s
        for rank in trace.ranks
        for s in rank.spans
        if s.step == step and s.kind in STEP and not s.depth  # else it is of an evaluation
    ]
    if not spans:
        there = steps_of(trace)
        has = f"steps {there[0]} to {there[-1]}" if there else "no steps of a training"
        raise UsageError(f"step {step} is not in the trace, which has {has}.")
    return min(s.begin for s in spans), max(s.end for s in spans)


STEP = frozenset(("data", "forward", "backward", "reduce", "clip", "optimizer"))


def steps_of(trace: Trace) -> range:
    """The steps of the training that are in the trace."""
    steps = [s.step for rank in trace.ranks for s in rank.spans if s.step >= 0]
    return range(min(steps), max(steps) + 1) if steps else range(0)


def only_step(trace: Trace, step: int) -> Trace:
    """Without what ranks that are ahead or behind did meanwhile for other steps."""
    ranks = [
        rank._replace(spans=[s for s in rank.spans if s.step in (step, -1)]) for rank in trace.ranks
    ]
    return trace._replace(ranks=ranks)


def step_times(rank: RankTrace) -> list[tuple[int, int]]:
    """When the rank began and ended each step, in order."""
    found: dict[int, tuple[int, int]] = {}
    for s in rank.spans:
        if s.step >= 0 and s.kind in STEP and not s.depth:
            first, last = found.get(s.step, (s.begin, s.end))
            found[s.step] = min(first, s.begin), max(last, s.end)
    return sorted(found.values())


def shares(rank: RankTrace, begin: int, end: int) -> Shares:
    """How the rank spent that time."""
    apart = merged((c.begin, c.end) for c, away in zip(rank.calls, rank.apart) if away)
    busy, window = computing(rank), np.array([[begin, end]])
    moving = merged([*_in_communication(rank).tolist(), *under_way(rank).tolist()])
    waits = waiting(rank)
    every = (busy, without(moving, waits), waits, common(apart, busy), window)
    return Shares(*(length_of(common(intervals, window)) for intervals in every))


def computing(rank: RankTrace) -> Intervals:
    """When the rank did what is neither waiting nor communication."""
    work = merged((s.begin, s.end) for s in rank.spans if s.kind != "wait" and not s.depth)
    return without(without(work, _in_communication(rank)), _idle(rank))


def waiting(rank: RankTrace) -> Intervals:
    """When the rank could not go on, and no message to or from it was on the wire."""
    return without(_idle(rank), under_way(rank))


def under_way(rank: RankTrace, messages: Iterable[Event] | None = None) -> Intervals:
    """When the rank could not go on, and one of these messages, or any, was on the wire; in virtual
    time only.
    """
    wire = rank.wire if messages is None else messages
    return common(_idle(rank), merged((m.begin, m.end) for m in wire))


def _idle(rank: RankTrace) -> Intervals:
    return merged((s.begin, s.end) for s in rank.spans if s.kind == "wait" and not s.second)


def _in_communication(rank: RankTrace) -> Intervals:
    """When the main thread was in a collective. A single message is handed over in no time, or
    waited for.
    """
    return merged((c.begin, c.end) for c, away in zip(rank.calls, rank.apart) if not away)


def bytes_by_axis(trace: Trace, begin: int, end: int) -> list[Counter[str]]:
    """For each rank, the bytes that it sent along each axis in that time."""
    return [
        sum(
            (Counter({trace.axis(m): m.nbytes}) for m in rank.messages if begin <= m.begin < end),
            Counter(),
        )
        for rank in trace.ranks
    ]


def report(trace: Trace, begin: int, end: int) -> list[dict[str, Any]]:
    """The numbers of each rank, for people and programs: shares of the time, bytes by axis."""
    rows = []
    for rank, sent in zip(trace.ranks, bytes_by_axis(trace, begin, end)):
        found = shares(rank, begin, end)
        names = ("computing", "moving", "waiting", "overlapped")
        parts = {name: getattr(found, name) / max(1, found.length) for name in names}
        rows.append({"rank": rank.rank, "ms": found.length / 1e6, **parts, "bytes_sent": sent})
    return rows


# -- intervals --------------------------------------------------------------------------------


def merged(pairs: Iterable[tuple[int, int]]) -> Intervals:
    """The union of intervals that may overlap."""
    table = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    if not len(table):
        return table
    reach = np.maximum.accumulate(table[:, 1])
    first = np.flatnonzero(np.r_[True, table[1:, 0] > reach[:-1]])
    return np.stack([table[first, 0], reach[np.r_[first[1:], len(table)] - 1]], axis=1)


def common(a: Intervals, b: Intervals) -> Intervals:
    """Where both are."""
    found, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        begin, end = max(a[i, 0], b[j, 0]), min(a[i, 1], b[j, 1])
        if begin < end:
            found.append((begin, end))
        if a[i, 1] < b[j, 1]:
            i += 1
        else:
            j += 1
    return np.array(found, np.int64).reshape(-1, 2)


def without(a: Intervals, b: Intervals) -> Intervals:
    """Where a is and b is not."""
    if not len(a):
        return a
    edges = np.r_[a[0, 0], b.reshape(-1), a[-1, 1]].reshape(-1, 2)
    gaps = edges[edges[:, 0] < edges[:, 1]]
    return common(a, gaps)


def length_of(intervals: Intervals) -> int:
    """How long all of them are together."""
    return int((intervals[:, 1] - intervals[:, 0]).sum())
