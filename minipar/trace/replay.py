"""A recorded run as one HTML file, to be played, stepped through and looked at without a network.

    timeline     what every rank does, with a line where the replay stands
    messages     what has just gone from whom to whom
    chunks       of the collective under way: who has contributed to which chunk, on every rank
    pipeline     the actions of each stage, as they are done

The page gets numbers and names as JSON, and only ever shows them as text; its script is
replay.js beside this file. Everything that happens is an event, in the order of time: a call begins
or ends, a message leaves or comes, an action of a pipeline or another part of a step begins or
ends.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from minipar.errors import UsageError
from minipar.events import Event
from minipar.trace.chunks import MOST_RANKS, states_by_message
from minipar.trace.timeline_figure import AXES, KINDS, OTHER, WAIT
from minipar.trace.trace_file import RankTrace, Trace

HERE = Path(__file__).parent
MOST_EVENTS = 50_000  # a browser draws no more in reasonable time
ACTIONS = "FBIW"


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
    page = (HERE / "replay.html").read_text(encoding="utf-8")
    script = (HERE / "replay.js").read_text(encoding="utf-8")
    return page.replace("/*DATA*/", text).replace("/*SCRIPT*/", script)


def replay_data(trace: Trace, begin: int, end: int, title: str) -> dict[str, Any]:
    """What the page is given: lanes, events in the order of time, and the states of collectives."""
    events = sorted(
        (event for rank in trace.ranks for event in _events(trace, rank, begin, end)),
        key=lambda event: (event["at"], event["order"]),
    )
    for event in events:
        del event["order"]
    return {
        "title": title,
        "virtual": trace.virtual,
        "length": end - begin,
        "ranks": len(trace.ranks),
        "lanes": [_lanes(trace, rank, begin, end) for rank in trace.ranks],
        "events": events,
        "collectives": _collectives(trace, events),
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


def _events(trace: Trace, rank: RankTrace, begin: int, end: int) -> list[dict[str, Any]]:
    found = []

    def add(at: int, order: int, does: str, **more: Any) -> None:
        if begin <= at < end:
            found.append(
                {"at": at - begin, "order": order, "rank": rank.rank, "does": does, **more}
            )

    for span in rank.spans:
        if not span.depth and span.kind != "wait":
            is_action = span.name[:1] in ACTIONS and span.name[1:].split(".")[0].isdigit()
            what = {"kind": span.kind, "name": span.name, "action": bool(span.name and is_action)}
            add(span.begin, 0, "begins", **what)
            add(span.end, 4, "ends", **what)
    for call in rank.calls:
        add(call.begin, 1, "calls", **_of(trace, call))
        add(call.end, 4, "returns", **_of(trace, call))
    for message in rank.messages:
        add(message.begin, 2, "sends", to=message.peer, **_of(trace, message))
    for message in rank.receipts:
        add(message.begin, 3, "gets", source=message.rank, **_of(trace, message))
    return found


def _of(trace: Trace, event: Event) -> dict[str, Any]:
    return {
        "op": event.op,
        "number": event.sequence,
        "group": event.group,
        "bytes": event.nbytes,
        "axis": trace.axis(event),
        "algorithm": event.algorithm,
        "site": event.site,
    }


def _collectives(trace: Trace, events: list[dict[str, Any]]) -> dict[str, Any]:
    """By operation, algorithm and ranks: the chunks of each rank after each message (chunks.py).

    Only of what can be shown, and only if the messages are those of that algorithm: a large array
    goes in several rounds.
    """
    sizes = {
        (rank.rank, group): len(members)
        for rank in trace.ranks
        for group, (_, members) in rank.groups.items()
    }
    wanted = {
        (e["op"], e["algorithm"], sizes.get((e["rank"], e["group"]), len(trace.ranks)))
        for e in events
        if e["does"] == "calls"
    }
    found = {}
    for op, algorithm, p in sorted(wanted):
        if not 2 <= p <= MOST_RANKS:
            continue
        try:
            states = states_by_message(op, algorithm, p)
        except UsageError:
            continue
        found[f"{op} {algorithm} {p}"] = [[s.tolist() for s in of_rank] for of_rank in states]
    return found


def messages_of(events: list[dict[str, Any]]) -> Counter[tuple[int, int]]:
    """How many messages the page shows from each rank to each other."""
    return Counter((e["rank"], e["to"]) for e in events if e["does"] == "sends")
