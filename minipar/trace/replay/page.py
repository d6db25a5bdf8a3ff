"""A recorded run as one HTML file, to be played, stepped through and looked at without a network.

    timeline     what every rank does, with a line where the replay stands
    messages     what has just gone from whom to whom
    chunks       of the collective at hand: who has contributed to which chunk, on every rank
    pipeline     the actions of each stage in time, and the bubble so far
    overlap      of data parallel: buckets under way beside backward, and how much that hides
    servers      the clocks of workers, what they have pulled, and the versions of parameter servers

The page is page.html with the files of SCRIPTS one after another: core.js, what all views share,
then each view, and controls.js, which calls every view whenever the replay moves. It gets numbers
and names as JSON (`replay_data`), and only ever shows them as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minipar.errors import UsageError
from minipar.spans import Span
from minipar.trace.replay.collectives import collectives
from minipar.trace.replay.happenings import happenings
from minipar.trace.replay.overlaps import overlaps, steps_between
from minipar.trace.replay.pipelines import pipelines
from minipar.trace.replay.servers import servers_of
from minipar.trace.timeline_figure import AXES, KINDS, OTHER, WAIT
from minipar.trace.totals import common, computing, under_way, waiting
from minipar.trace.trace_file import RankTrace, Trace

HERE = Path(__file__).parent
SCRIPTS = ("core", "timeline", "messages", "chunks", "pipeline", "overlap", "servers", "controls")
MOST_EVENTS = 50_000  # a browser draws no more in reasonable time


def replay_page(trace: Trace, begin: int, end: int, title: str) -> str:
    """The page of the window from begin to end, in ns of the trace.

    Raises: UsageError if too much happens in it.
    """
    data = replay_data(trace, begin, end, title)
    if len(data["events"]) > MOST_EVENTS:
        raise UsageError(
            f"{len(data['events'])} events are too many for a page (at most {MOST_EVENTS}): "
            "--step N takes one step of the training."
        )
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page = (HERE / "page.html").read_text(encoding="utf-8")
    scripts = [(HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return page.replace("/*DATA*/", text).replace("/*SCRIPT*/", "\n".join(scripts))


def replay_data(trace: Trace, begin: int, end: int, title: str) -> dict[str, Any]:
    """What the page is given: lanes, events in the order of time, and what each view needs."""
    shown = collectives(trace, begin, end)
    steps = [
        [step, first - begin, [begins.get(rank.rank, first) - begin for rank in trace.ranks]]
        for step, first, _, begins in steps_between(trace, begin, end)
        if step >= 0
    ]
    return {
        "title": title,
        "virtual": trace.virtual,
        "length": end - begin,
        "ranks": len(trace.ranks),
        "steps": steps,
        "lanes": [_lanes(trace, rank, begin, end) for rank in trace.ranks],
        "events": happenings(trace, begin, end, shown["numbers"]),
        "collectives": {name: shown[name] for name in ("calls", "stories")},
        "pipelines": pipelines(trace, begin, end),
        "overlaps": overlaps(trace, begin, end),
        "servers": servers_of(trace, begin),
        "colours": {**KINDS, **AXES, "": OTHER, "wait": WAIT},
    }


def _worked(outer: Sequence[Span], rank: RankTrace) -> Iterable[tuple[int, int, str, str]]:
    """The parts of these spans, which follow each other, in which the rank computed; the longest
    part of each has its name.
    """
    times = np.array([(s.begin, s.end) for s in outer], np.int64).reshape(-1, 2)
    parts = common(times, computing(rank))
    whose = np.searchsorted(times[:, 0], parts[:, 0], "right") - 1
    length = parts[:, 1] - parts[:, 0]
    order = np.lexsort((-length, whose))
    first = np.r_[True, whose[order][1:] != whose[order][:-1]][: len(order)]
    longest = set(order[first].tolist())
    for n, (begin, end) in enumerate(parts.tolist()):
        span = outer[whose[n]]
        yield begin, end, span.kind, span.name if n in longest else ""


def _lanes(trace: Trace, rank: RankTrace, begin: int, end: int) -> dict[str, Any]:
    """The bars of one rank: [begin, end, kind or axis, name].

    work: the parts of spans in which the rank computed; waits: each for whom; idle: when no message
    was on the wire either; calls: and messages that were, while the rank waited.
    """

    def inside(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
        return [[a - begin, b - begin, *more] for a, b, *more in rows if b > begin and a < end]

    spans = [s for s in rank.spans if not s.second]
    outer = sorted((s for s in spans if not s.depth and s.kind != "wait"), key=lambda s: s.begin)
    calls = [[c.begin, c.end, trace.axis(c), c.op] for c in rank.calls]
    for axis in {trace.axis(message) for message in rank.wire}:
        wire = under_way(rank, [m for m in rank.wire if trace.axis(m) == axis])
        calls += [[a, b, axis, "a message"] for a, b in wire.tolist()]
    return {
        "spans": inside((s.begin, s.end, s.kind, s.name) for s in outer),
        "work": inside(_worked(outer, rank)),
        "waits": inside((s.begin, s.end, "waiting", s.name) for s in spans if s.kind == "wait"),
        "idle": inside((a, b, "waiting", "") for a, b in waiting(rank).tolist()),
        "calls": inside(calls),
    }
