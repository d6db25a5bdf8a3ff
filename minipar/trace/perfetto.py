"""A trace as the JSON that Perfetto (ui.perfetto.dev) and chrome://tracing open.

A rank is a process there, with a row for each of its threads; a message is an arrow from its sender
to its receiver. Memory, clocks of workers and versions of servers are counters. Times are in
microseconds.

Format: "Trace Event Format", the phases M (names), X (spans), C (counters), s and f (arrows).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

from minipar.alive import KINDS
from minipar.events import Event
from minipar.trace.trace_file import RankTrace, Trace

MAIN, SECOND = 0, 1  # rows of a rank
COUNTED = ("clock", "version")  # marks that are a number which goes up


def perfetto(trace: Trace, begin: int, end: int) -> dict[str, Any]:
    """What lies in the window from begin to end, in ns of the trace."""
    rows = [row for rank in trace.ranks for row in _rank(trace, rank, begin, end)]
    rows += _arrows(trace, begin, end)
    return {"traceEvents": rows, "displayTimeUnit": "ms"}


def _rank(trace: Trace, rank: RankTrace, begin: int, end: int) -> Iterator[dict[str, Any]]:
    pid = rank.rank
    named: dict[str, Any] = {"ph": "M", "pid": pid}
    yield named | {"name": "process_name", "args": {"name": f"rank {pid}"}}
    yield named | {"name": "process_sort_index", "args": {"sort_index": pid}}
    for tid, name in ((MAIN, "main"), (SECOND, "asynchronous calls")):
        yield named | {"tid": tid, "name": "thread_name", "args": {"name": name}}
    for span in rank.spans:
        if begin <= span.begin < end:
            facts: dict[str, Any] = {"step": span.step, "micro": span.micro}
            name = f"{span.kind} {span.name}".strip()
            yield _span(pid, span.second, name, span.kind, span.begin, span.end, facts)
    for call, apart in zip(rank.calls, rank.apart):
        if begin <= call.begin < end:
            axis = trace.axis(call)
            facts = {"bytes": call.nbytes, "axis": axis, "algorithm": call.algorithm}
            facts |= {"at": call.site, "number": call.sequence}
            yield _span(pid, apart, f"{call.op} ({axis})", "call", call.begin, call.end, facts)
    for when, used in rank.memory:
        if begin <= when < end:
            yield _counted(pid, "memory", when, {"MB": used / 2**20})
    for when, *held in rank.held:
        if begin <= when < end:
            yield _counted(pid, "arrays, MB", when, {k: n / 2**20 for k, n in zip(KINDS, held)})
    for mark in rank.marks:
        if begin <= mark.at < end and mark.kind in COUNTED:
            yield _counted(pid, mark.kind, mark.at, {mark.kind: mark.value})
            if mark.lag >= 0:
                yield _counted(pid, "staleness", mark.at, {f"of worker {mark.whom}": mark.lag})


def _counted(pid: int, name: str, when: int, values: dict[str, float]) -> dict[str, Any]:
    return {"ph": "C", "pid": pid, "name": name, "ts": when / 1e3, "args": values}


def _span(
    pid: int, second: bool, name: str, kind: str, begin: int, end: int, facts: dict[str, Any]
) -> dict[str, Any]:
    when = {"ts": begin / 1e3, "dur": (end - begin) / 1e3}
    tid = SECOND if second else MAIN
    return {"ph": "X", "pid": pid, "tid": tid, "name": name, "cat": kind, **when, "args": facts}


def _arrows(trace: Trace, begin: int, end: int) -> Iterator[dict[str, Any]]:
    for number, (sent, got) in enumerate(pairs_of(trace)):
        if begin <= sent.begin < end:
            both = {"tid": MAIN, "name": sent.op, "cat": "message", "id": number}
            ends = sent.begin / 1e3, max(got.begin, sent.begin) / 1e3
            yield {
                "ph": "s",
                "pid": sent.rank,
                "ts": ends[0],
                **both,
                "args": {"bytes": sent.nbytes},
            }
            yield {"ph": "f", "bp": "e", "pid": sent.peer, "ts": ends[1], **both}


def pairs_of(trace: Trace) -> list[tuple[Event, Event]]:
    """Each message with its receipt: those of one pair and group arrive in order, call by call."""
    waiting: dict[tuple[Any, ...], deque[Event]] = defaultdict(deque)
    for rank in trace.ranks:
        for got in rank.receipts:
            waiting[_lane(got)].append(got)
    found = []
    for rank in trace.ranks:
        for sent in rank.messages:
            lane = waiting.get(_lane(sent))
            if lane:
                found.append((sent, lane.popleft()))
    return found


def _lane(event: Event) -> tuple[Any, ...]:
    """What a message and its receipt have in common."""
    collective = event.op not in ("send", "recv")
    return (event.rank, event.peer, event.group, event.sequence if collective else -1, collective)
