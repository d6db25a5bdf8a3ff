"""What the page of a replay has to know of parameter servers before its first event.

Clocks, versions, pulls and who is held back are events of the page (happenings.py), and servers.js
keeps account of them. Of what was before the window, it needs the last of each kind.
"""

from __future__ import annotations

from typing import Any

from minipar.spans import Mark
from minipar.trace.replay.happenings import about, serving
from minipar.trace.served import COLOURS, is_served, served
from minipar.trace.trace_file import Trace


def servers_of(trace: Trace, begin: int) -> dict[str, Any] | None:
    """The rule, who is who, and `before`: events that lead to the state at the beginning."""
    if not is_served(trace):
        return None
    known = served(trace)
    return {
        "bound": known.bound,
        "workers": known.workers,
        "silent": [w for w in range(known.workers) if w not in known.clocks],
        "servers": list(known.versions),
        "before": _before(trace, begin),
        "colours": COLOURS,
    }


def _before(trace: Trace, begin: int) -> list[dict[str, Any]]:
    """The last mark before that time of each kind, rank, and whom it is about, in their order."""
    marks = [(mark.at, rank.rank, mark) for rank in trace.ranks for mark in serving(rank)]
    last: dict[Any, tuple[int, Mark]] = {}
    for at, rank, mark in sorted(marks, key=lambda row: row[0]):
        if at < begin:
            key = rank, mark.kind, mark.whom
            last.pop(key, None)  # so that it is the latest of all, too
            last[key] = rank, mark
    return [{"rank": rank, "does": mark.kind, **about(mark)} for rank, mark in last.values()]
