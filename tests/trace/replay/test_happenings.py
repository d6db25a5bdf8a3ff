"""The events of a page are what the trace holds, in the order of time."""

import numpy as np
import pytest

from minipar.spans import span
from minipar.trace.replay.happenings import happenings, messages_of
from tests.trace.replay.runs import trace_of


def work(group):
    with span("forward", "F0", 0):
        group.spend(3e-6)
    group.all_reduce(np.ones(8) * group.rank, algorithm="ring")
    pair = group.split(group.rank % 2)
    pair.all_reduce(np.ones(4))


@pytest.fixture(scope="module")
def trace():
    return trace_of(work, 4)


def test_all_that_happened_is_there_in_the_order_of_time(trace):
    events = happenings(trace, 0, trace.end + 1)
    assert [e["at"] for e in events] == sorted(e["at"] for e in events)
    sent = [(m.rank, m.peer) for rank in trace.ranks for m in rank.messages]
    assert messages_of(events) == {pair: sent.count(pair) for pair in sent}
    assert sum(e["does"] == "gets" for e in events) == len(sent)
    calls = sum(len(rank.calls) for rank in trace.ranks)
    assert sum(e["does"] == "calls" for e in events) == calls
    assert [(e["does"], e["name"]) for e in events if e.get("kind") == "forward"] == [
        *[("begins", "F0")] * 4,
        *[("ends", "F0")] * 4,
    ]


def test_only_what_lies_between_counted_from_the_beginning(trace):
    half = trace.end // 2
    before, after = happenings(trace, 0, half), happenings(trace, half, trace.end + 1)
    assert before + [{**e, "at": e["at"] + half} for e in after] == happenings(
        trace, 0, trace.end + 1
    )


def test_events_of_a_collective_that_can_be_shown_have_its_number(trace):
    call = next(c for c in trace.ranks[0].calls if c.op == "all_reduce")
    events = happenings(trace, 0, trace.end + 1, {(call.group, call.op, call.sequence): 7})
    mine = [e for e in events if e.get("call") == 7]
    assert {e["op"] for e in mine} == {"all_reduce"} and {e["rank"] for e in mine} == {0, 1, 2, 3}
