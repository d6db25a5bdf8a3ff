"""The pipeline as it really was: a row for each stage, its micro-batches in time, and its bubble.

    stage 0  [F0][F1][F2]////////[B0 ][B1 ][B2 ]   bubble 27%
    stage 1  ////[F0][F1][F2][B0 ][B1 ][B2 ]////   bubble 27%

The picture is that of schedules that are simulated (`schedule_figure.py`), so the two can be laid
side by side. An action is there from when it had what it needs until it was done.

Of ranks that are alike but for their slices of the layers (tp) the first stands for all; replicas
(dp) are drawn below each other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minipar.errors import UsageError
from minipar.parallel.schedule import Action
from minipar.parallel.schedule_time import Span, Timeline
from minipar.trace.schedule_figure import draw_schedule
from minipar.trace.totals import common, length_of, merged
from minipar.trace.trace_file import RankTrace, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACTION = re.compile(r"([FBIW])(\d+)(?:\.(\d+))?$")


def lacks(trace: Trace) -> str:
    """Why there is nothing to draw; empty if there is."""
    if any(ACTION.match(s.name) for rank in trace.ranks for s in rank.spans):
        return ""
    return "no rank of this trace was a stage of a pipeline: a run with --pp 2 or more has them."


def draw_pipeline(trace: Trace, begin: int, end: int, title: str = "") -> Figure:
    """All pipelines between begin and end, in ns of the trace.  Raises: UsageError."""
    if reason := lacks(trace):
        raise UsageError(reason)
    stages = [row for row in rows_of(trace) if actions_of(trace.ranks[row[-1]], begin, end)]
    if not stages:
        raise UsageError("no stage did anything in this part of the run; leave out --last.")
    timeline = timeline_of(trace, [rank for *_, rank in stages], begin, end)
    shares = bubbles(timeline)
    several = len({replica for replica, *_ in stages}) > 1
    names = [f"replica {r}, stage {s}" if several else f"stage {s}" for r, s, _ in stages]
    beside = [f" bubble {share:.1%}" for share in shares]
    figure = draw_schedule(timeline, None, title, names, beside)
    figure.axes[0].set_xlabel(f"ms{' of virtual time' if trace.virtual else ''}", loc="right")
    return figure


def rows_of(trace: Trace) -> list[tuple[int, int, int]]:
    """(replica, stage, rank) of the ranks that are drawn, in order."""
    if not any(axis == "pp" for rank in trace.ranks for axis, _ in rank.groups.values()):
        groups = [tuple(rank.rank for rank in trace.ranks)]  # a script that is one pipeline
    else:
        groups = sorted({tuple(r) for rank in trace.ranks for r in _ranks(rank, "pp")})
        groups = [g for g in groups if all(g[0] == min(r) for r in _ranks(trace.ranks[g[0]], "tp"))]
    return [(n, s, rank) for n, ranks in enumerate(groups) for s, rank in enumerate(ranks)]


def _ranks(rank: RankTrace, axis: str) -> list[tuple[int, ...]]:
    return [ranks for name, ranks in rank.groups.values() if name == axis]


def actions_of(rank: RankTrace, begin: int, end: int) -> list[Span]:
    """What the stage did, in ms since `begin`, each from when it had what other stages send."""
    others = {f"rank {r}" for ranks in _ranks(rank, "pp") for r in ranks}
    waits = merged(
        (s.begin, s.end)
        for s in rank.spans
        if s.kind == "wait" and not s.second and (not others or s.name in others)
    )
    found = []
    for span in rank.spans:
        match = ACTION.match(span.name)
        if match and begin <= span.begin and span.end <= end:
            waited = length_of(common(waits, merged([(span.begin, span.end)])))
            action = Action(match[1], int(match[2]), int(match[3] or 0))
            first, last = (span.begin + waited - begin) / 1e6, (span.end - begin) / 1e6
            found.append(Span(action, first, last))
    return sorted(found, key=lambda span: span.start)


def timeline_of(trace: Trace, ranks: Sequence[int], begin: int, end: int) -> Timeline:
    """The actions of these ranks, in ms since the first one began."""
    rows = [actions_of(trace.ranks[rank], begin, end) for rank in ranks]
    first = min(span.start for row in rows for span in row)
    rows = [[Span(a, b - first, c - first) for a, b, c in row] for row in rows]
    length = max(span.end for row in rows for span in row)
    busy = sum(span.end - span.start for row in rows for span in row)
    return Timeline(rows, length, 1 - busy / (length * len(rows)), [_stored(row) for row in rows])


def bubbles(timeline: Timeline) -> list[float]:
    """The part of the time in which each stage waits."""
    busy = [sum(span.end - span.start for span in row) for row in timeline.spans]
    return [1 - own / timeline.length for own in busy]


def _stored(row: Sequence[Span]) -> int:
    """The most micro-batches that were between F and the end of B at once."""
    kept, most = Counter[str](), 0
    for action, *_ in row:
        kept[action.phase] += 1
        most = max(most, kept["F"] - max(kept["B"], kept["W"]))
    return most
