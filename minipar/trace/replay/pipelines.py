"""The pipelines of a run, each step of each replica laid out in time, for the page of a replay.

    stage 0   [F0][F1][F2]      [B2]   [B1]   [B0]          what is between them is the bubble
    stage 1       [F0][F1][F2][B2]  [B1]  [B0]

An action lasts from when it had what it needed: waiting for a neighbour is bubble, waiting inside a
collective (of tensor parallel, say) is not. So an action may come in several parts.

Letters: s stages, m a micro-batch.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from minipar.spans import Span
from minipar.trace.totals import merged, without
from minipar.trace.trace_file import RankTrace, Trace

ACTION = re.compile(r"([FBIW])(\d+)(?:\.(\d+))?")  # phase, micro-batch, chunk
Pair = tuple[int, int]


def pipelines(trace: Trace, begin: int, end: int) -> list[dict[str, Any]]:
    """Those with an action between begin and end, in ns of the trace, from which times count.

    Each: its step (-1: none) and how often it had one in that step before, the ranks of its
    stages, when it begins and ends, and its actions: [stage, phase, micro, chunk, parts, again],
    parts as [begin, end], `again` for recomputation.
    """
    found: defaultdict[tuple[Any, ...], list[tuple[int, Span]]] = defaultdict(list)
    for rank in trace.ranks:
        for span, time in _actions(rank):
            found[_stages(trace, rank.rank), span.step, time].append((rank.rank, span))
    idle, again = [_idle(rank) for rank in trace.ranks], [_again(rank) for rank in trace.ranks]
    made = []
    for (ranks, step, time), actions in found.items():
        first, last = min(s.begin for _, s in actions), max(s.end for _, s in actions)
        if first >= end or last < begin:
            continue
        rows = []
        for number, span in sorted(actions, key=lambda action: action[1].begin):
            phase, micro, chunk = ACTION.fullmatch(span.name).groups()  # type: ignore[union-attr]
            parts = [[a - begin, b - begin] for a, b in _outside(span, idle[number])]
            redone = [[a - begin, b - begin] for a, b in _inside(span, again[number])]
            rows.append([ranks.index(number), phase, int(micro), int(chunk or 0), parts, redone])
        made.append(
            {
                "step": step,
                "time": time,
                "ranks": list(ranks),
                "begin": first - begin,
                "end": last - begin,
                "actions": rows,
            }
        )
    return sorted(made, key=lambda one: (one["begin"], one["ranks"]))


def _actions(rank: RankTrace) -> list[tuple[Span, int]]:
    """The actions of a rank, and how often it has done the same in that step before."""
    times: Counter[tuple[int, str]] = Counter()
    found = []
    for span in rank.spans:
        if not span.depth and not span.second and ACTION.fullmatch(span.name):
            found.append((span, times[span.step, span.name]))
            times[span.step, span.name] += 1
    return found


def _stages(trace: Trace, rank: int) -> tuple[int, ...]:
    """The ranks of the pipeline that this one is in; where none is named, all that have actions."""
    for axis, ranks in trace.ranks[rank].groups.values():
        if axis == "pp":
            return ranks
    alone = [r.rank for r in trace.ranks if all(axis != "pp" for axis, _ in r.groups.values())]
    return tuple(r for r in alone if _actions(trace.ranks[r]))


def _idle(rank: RankTrace) -> list[Pair]:
    """When the rank waited for a single message."""
    waits = merged((s.begin, s.end) for s in rank.spans if s.kind == "wait" and not s.second)
    calls = merged((c.begin, c.end) for c, away in zip(rank.calls, rank.apart) if not away)
    return [(a, b) for a, b in without(waits, calls).tolist()]


def _again(rank: RankTrace) -> list[Pair]:
    """When it did a forward once more."""
    redone = (s for s in rank.spans if s.kind == "recompute" and not s.second)
    return [(a, b) for a, b in merged((s.begin, s.end) for s in redone).tolist()]


def _inside(span: Span, pairs: Sequence[Pair]) -> list[Pair]:
    """The parts of the span that these intervals cover.  They are in order and apart."""
    found = []
    for a, b in pairs[max(0, bisect_left(pairs, (span.begin, 0)) - 1) :]:
        if a >= span.end:
            break
        if b > span.begin:
            found.append((max(a, span.begin), min(b, span.end)))
    return found


def _outside(span: Span, pairs: Sequence[Pair]) -> list[Pair]:
    """The parts that they do not cover."""
    edges = [span.begin, *(x for pair in _inside(span, pairs) for x in pair), span.end]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2]) if a < b]
