"""Overlap as it really was: what each rank sent beside its computation, and how much of it is free.

    rank 0   computes   [ forward ][      backward      ]     [optimizer]
             sends                    [ hidden ][ hidd///]

The picture is that of `overlap.py`, which lays out in virtual time what could be. An all_reduce
goes on in the second thread of the rank (`async_op`); what goes on in the first one is never
hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minipar.errors import UsageError
from minipar.trace.overlap import ALL_REDUCE, Span, draw_overlap
from minipar.trace.totals import common, computing, merged, without
from minipar.trace.trace_file import RankTrace, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lacks(trace: Trace) -> str:
    """Why there is nothing to draw; empty if there is."""
    if any(rank.calls for rank in trace.ranks):
        return ""
    return (
        "no rank of this trace has called a collective, which could overlap: a run with --dp 2 "
        "--overlap does."
    )


def draw_overlap_of(trace: Trace, begin: int, end: int, title: str = "") -> Figure:
    """All ranks between begin and end, in ns of the trace.  Raises: UsageError."""
    if reason := lacks(trace):
        raise UsageError(reason)
    rows = {f"rank {rank.rank}": spans_of(rank, begin, end) for rank in trace.ranks}
    rows = {name: spans for name, spans in rows.items() if spans}
    if not rows:
        raise UsageError("no rank did anything in this part of the run.")
    figure = draw_overlap(rows, "ms of virtual time" if trace.virtual else "ms")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def spans_of(rank: RankTrace, begin: int, end: int) -> list[Span]:
    """What the rank computed, by kind, and its collectives, in seconds since begin."""
    busy, found = computing(rank), []
    taken = merged([])  # a moment counts once
    for kind in dict.fromkeys(s.kind for s in rank.spans if s.kind != "wait" and not s.depth):
        own = merged((s.begin, s.end) for s in rank.spans if s.kind == kind and not s.depth)
        own = common(common(own, busy), merged([(begin, end)]))
        found += [Span(kind, "", *times) for times in without(own, taken).tolist()]
        taken = merged([*taken.tolist(), *own.tolist()])
    calls = [(max(c.begin, begin), min(c.end, end)) for c in rank.calls]
    found += [Span(ALL_REDUCE, "", a, b) for a, b in calls if a < b]
    return [s._replace(begin=(s.begin - begin) / 1e9, end=(s.end - begin) / 1e9) for s in found]
