"""Communication beside backward, rank by rank and step by step, for the page of a replay.

    rank 0   backward   [ blocks.3 ][ blocks.2 ][ blocks.1 ][ blocks.0 ]
             buckets             ^  [ all_reduce ][ all_reduce ]..[ all_reduce ]
                                 ready   hidden                      not hidden

Hidden is what goes on while the rank computes: the same moments that totals.py calls overlapped.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from minipar.events import Event
from minipar.spans import Span
from minipar.trace.replay.pipelines import ACTION
from minipar.trace.totals import STEP, common, computing, merged
from minipar.trace.trace_file import RankTrace, Trace

REDUCTIONS = ("all_reduce", "reduce_scatter")
ACROSS = ("dp", "world")  # the axes along which gradients are summed
SMALL = 256  # bytes: not of gradients


def overlaps(trace: Trace, begin: int, end: int) -> list[dict[str, Any]]:
    """The steps between begin and end in which gradients are summed, or a second thread sends.

    Each: its number (-1: none), begin (begins: of each rank) and end, the groups of ranks that are
    shown together, and the ranks. Of a rank: its layers as backward goes through them [begin, end,
    name], its calls [begin, end, op, bytes, second thread], when one was ready for the second
    thread and when one was hidden [begin, end].
    """
    lanes = [_lane(rank, trace) for rank in trace.ranks]
    made = []
    for step, first, last, begins in steps_between(trace, begin, end):
        ranks = [
            {name: _cut(rows, first, last, begin) for name, rows in lane.items()} for lane in lanes
        ]
        if any(rank["calls"] for rank in ranks):
            times = {"begin": first - begin, "end": last - begin}
            of_ranks = [begins.get(rank.rank, first) - begin for rank in trace.ranks]
            known = {"step": step, **times, "begins": of_ranks, "groups": _replicas(trace)}
            made.append({**known, "ranks": ranks})
    return made


def steps_between(trace: Trace, begin: int, end: int) -> list[tuple[int, int, int, dict[int, int]]]:
    """The steps of the training: number, begin, end, and when each rank began it.

    Without any, all is one: -1.
    """
    begins: defaultdict[int, dict[int, int]] = defaultdict(dict)
    ends: defaultdict[int, int] = defaultdict(int)
    for rank in trace.ranks:
        for span in rank.spans:
            if span.step >= 0 and span.kind in STEP:
                known = begins[span.step]
                known[rank.rank] = min(span.begin, known.get(rank.rank, span.begin))
                ends[span.step] = max(span.end, ends[span.step])
    found = [(n, min(known.values()), ends[n], known) for n, known in sorted(begins.items())]
    return [row for row in found if row[1] < end and row[2] > begin] or [(-1, begin, end, {})]


def _lane(rank: RankTrace, trace: Trace) -> dict[str, list[list[Any]]]:
    """What one rank shows, of the whole run: rows of begin, end, and what there is to say."""
    reduces = merged((s.begin, s.end) for s in rank.spans if s.kind == "reduce").tolist()
    calls: list[list[Any]] = [
        [c.begin, c.end, c.op, c.nbytes, away]
        for c, away in zip(rank.calls, rank.apart)
        if away or _is_reduction(trace, c, reduces)
    ]
    apart = merged((row[0], row[1]) for row in calls if row[-1])
    return {
        "forward": [[s.begin, s.end] for s in rank.spans if _is_part(s, "forward")],
        "layers": _layers(rank)
        or [[s.begin, s.end, s.name] for s in rank.spans if _is_part(s, "backward")],
        "ready": [[mark.at, mark.at] for mark in rank.marks if mark.kind == "queued"],
        "calls": calls,
        "hidden": common(apart, computing(rank)).tolist(),
    }


def _cut(rows: list[list[Any]], first: int, last: int, zero: int) -> list[list[Any]]:
    """The rows from first to last, cut where they begin before or end after; times from zero."""
    return [
        [max(a, first) - zero, min(b, last) - zero, *more]
        for a, b, *more in rows
        if a < last and b > first
    ]


def _replicas(trace: Trace) -> list[list[int]]:
    """The ranks that sum their gradients; all of them if the trace does not say it."""
    everybody = list(range(len(trace.ranks)))
    groups = {
        tuple(next((ranks for axis, ranks in rank.groups.values() if axis == "dp"), everybody))
        for rank in trace.ranks
    }
    return sorted(map(list, groups))


def _is_part(span: Span, kind: str) -> bool:
    return span.kind == kind and not span.depth and not span.second


def _is_reduction(trace: Trace, call: Event, reduces: list[list[int]]) -> bool:
    """Whether the call, of the rank's own thread, sums gradients when backward is over."""
    return (
        call.op in REDUCTIONS
        and trace.axis(call) in ACROSS
        and call.nbytes > SMALL
        and any(a <= call.begin < b for a, b in reduces)
    )


def _layers(rank: RankTrace) -> list[list[Any]]:
    """Backward through the layers, in order: blocks.1.mlp and blocks.1.attention are one."""
    found: list[list[Any]] = []
    last = (-1, -1, "")
    for span in sorted(rank.spans, key=lambda span: span.begin):
        if span.kind != "backward" or span.depth > 1 or not is_layer(span.name):
            continue
        this = span.step, span.micro, short(span.name)
        if found and this == last:
            found[-1][1] = span.end
        else:
            found.append([span.begin, span.end, this[2]])
        last = this
    return found


def is_layer(name: str) -> bool:
    return bool(name) and not ACTION.fullmatch(name)


def short(name: str) -> str:
    """A module's name up to its first number: blocks.3 of blocks.3.mlp.up."""
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), 0)
    return ".".join(parts[: number + 1])
