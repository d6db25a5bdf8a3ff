"""A recorded run as one HTML file, to be played, stepped through and looked at without a network.

    timeline     what every rank does, with a line where the replay stands
    messages     what has just gone from whom to whom
    chunks       of the collective under way: who has contributed to which chunk, on every rank
    pipeline     the actions of each stage, as they are done
    servers      the clocks of workers, what they have pulled, and the versions of parameter servers

The page is page.html with the files of SCRIPTS one after another: core.js, what all views share,
then each view, and controls.js, which calls every view whenever the replay moves. It gets numbers
and names as JSON (`replay_data`), and only ever shows them as text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minipar.errors import UsageError
from minipar.trace.replay.collectives import states_of
from minipar.trace.replay.happenings import happenings
from minipar.trace.replay.servers import servers_of
from minipar.trace.timeline_figure import AXES, KINDS, OTHER, WAIT
from minipar.trace.trace_file import RankTrace, Trace

HERE = Path(__file__).parent
SCRIPTS = ("core", "timeline", "messages", "chunks", "pipeline", "servers", "controls")
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
    """What the page is given: lanes, events in the order of time, and the states of collectives."""
    events = happenings(trace, begin, end)
    return {
        "title": title,
        "virtual": trace.virtual,
        "length": end - begin,
        "ranks": len(trace.ranks),
        "lanes": [_lanes(trace, rank, begin, end) for rank in trace.ranks],
        "events": events,
        "collectives": states_of(trace, events),
        "servers": servers_of(trace, begin),
        "colours": {**KINDS, **AXES, "": OTHER, "wait": WAIT},
    }


def _lanes(trace: Trace, rank: RankTrace, begin: int, end: int) -> dict[str, Any]:
    """The bars of one rank: [begin, end, kind or axis, name]."""
    spans = [
        [s.begin - begin, s.end - begin, s.kind, s.name]
        for s in rank.spans
        if s.end > begin and s.begin < end and (not s.depth or s.kind == "wait") and not s.second
    ]
    calls = [
        [c.begin - begin, c.end - begin, trace.axis(c), c.op]
        for c in rank.calls
        if c.end > begin and c.begin < end
    ]
    return {
        "spans": [s for s in spans if s[2] != "wait"],
        "waits": [s for s in spans if s[2] == "wait"],
        "calls": calls,
    }
