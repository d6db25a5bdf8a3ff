"""All that happens in a run, in the order of time: what the page of a replay steps through.

    {"at": 1200, "rank": 0, "does": "sends", "to": 1, "op": "all_reduce", "number": 0, ...}

A call begins or ends (calls, returns), a message leaves or comes (sends, gets), an action of a
pipeline or another part of a step begins or ends (begins, ends). What the clocks of parameter
servers do is called as in spans.Mark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from minipar.events import Event
from minipar.spans import Mark
from minipar.trace.trace_file import RankTrace, Trace

SERVING = frozenset(
    ("clock", "pulled", "bound", "version", "given", "held", "granted", "gone")
)  # kinds of marks
Numbers = Mapping[tuple[int, str, int], int]  # of calls, by group, operation and number


def happenings(
    trace: Trace, begin: int, end: int, numbers: Numbers | None = None
) -> list[dict[str, Any]]:
    """Those from begin to end, in ns of the trace; `at` counts from begin.

    Of what a rank does at one moment of virtual time, what it gets comes before what it sends.
    numbers: of the collectives whose chunks can be shown; the events of one have it as `call`.
    """
    events = sorted(
        (
            event
            for rank in trace.ranks
            for event in _of_rank(trace, rank, begin, end, numbers or {})
        ),
        key=lambda event: (event["at"], event["order"]),
    )
    for event in events:
        del event["order"]
    return events


def messages_of(events: list[dict[str, Any]]) -> Counter[tuple[int, int]]:
    """How many messages there are from each rank to each other."""
    return Counter((e["rank"], e["to"]) for e in events if e["does"] == "sends")


def _of_rank(
    trace: Trace, rank: RankTrace, begin: int, end: int, numbers: Numbers
) -> list[dict[str, Any]]:
    found = []

    def add(at: int, order: int, does: str, **more: Any) -> None:
        if begin <= at < end:
            found.append(
                {"at": at - begin, "order": order, "rank": rank.rank, "does": does, **more}
            )

    def of(event: Event) -> dict[str, Any]:
        known = {"op": event.op, "number": event.sequence, "bytes": event.nbytes}
        known |= {"axis": trace.axis(event), "algorithm": event.algorithm, "site": event.site}
        call = numbers.get((event.group, event.op, event.sequence))
        return known if call is None else {**known, "call": call}

    for span in rank.spans:
        if not span.depth and span.kind != "wait" and not span.second:
            what = {"kind": span.kind, "name": span.name}
            add(span.begin, 0, "begins", **what)
            add(span.end, 5, "ends", **what)
    for call in rank.calls:
        add(call.begin, 1, "calls", **of(call))
        add(call.end, 5, "returns", **of(call))
    for message in rank.messages:
        add(message.begin, 4, "sends", to=message.peer, **of(message))
    for message in rank.receipts:
        add(message.begin, 2, "gets", source=message.rank, **of(message))
    for mark in serving(rank):
        add(mark.at, 3, mark.kind, **about(mark))
    return found


def serving(rank: RankTrace) -> list[Mark]:
    """Its marks that are about parameter servers."""
    return [mark for mark in rank.marks if mark.kind in SERVING]


def about(mark: Mark) -> dict[str, int]:
    """What a mark tells beside its kind."""
    return {"whom": mark.whom, "value": mark.value, "lag": mark.lag}
