"""Which chunks a page shows: the story of every algorithm is found in a trace of it, message by
message, whoever is in the group."""

import numpy as np
import pytest

from minipar.comm import messages
from minipar.trace.replay.collectives import ROOTED, collectives
from tests.trace.replay.runs import EVERY, collective, every_collective, trace_of


def shown(trace):
    found = collectives(trace, 0, trace.end + 1)
    return {key: found["calls"][n] for key, n in found["numbers"].items()}, found["stories"]


def at_the_end(op, p):
    """[place, chunk]: whose parts must be there, as bits; -1 where it does not matter."""
    everybody, table = (1 << p) - 1, np.full((p, p), -1)
    if op == "all_reduce":
        table[:] = everybody
    elif op == "reduce":
        table[0] = everybody
    elif op == "reduce_scatter":
        np.fill_diagonal(table, everybody)
    elif op == "gather":
        table[0] = 1 << np.arange(p)
    elif op in ("all_gather", "all_to_all"):
        table[:] = 1 << np.arange(p)
    else:
        np.fill_diagonal(table, 1)
        table[:] = 1 if op == "broadcast" else table
    return table


@pytest.mark.parametrize("p", [2, 3, 4, 8])
def test_every_algorithm_has_its_story_and_its_root(p):
    root = p - 1
    calls, stories = shown(trace_of(every_collective, p, root))
    assert len(calls) == len(EVERY)
    for (op, name), ((_, key, _), call) in zip(EVERY, calls.items(), strict=True):
        assert key == op and call["rounds"] == 1, (op, name)
        assert call["ranks"][0] == (root if op in ROOTED else 0), (op, name)
        assert sorted(call["ranks"]) == list(range(p))
        states = np.array([place["states"][-1] for place in stories[call["story"]]])
        expected = at_the_end(op, p)
        assert (states[expected >= 0] == expected[expected >= 0]).all(), (op, name)


@pytest.mark.parametrize("p", [2, 3, 4, 8])
def test_messages_carry_chunks_that_their_sender_has(p):
    """Each message that somebody gets is one that its sender has sent, with the same chunks."""
    calls, stories = shown(trace_of(every_collective, p, 0))
    for (_, op, _), call in calls.items():
        story = stories[call["story"]]
        sent = sorted(tuple(chunks) for place in story for chunks in place["sent"])
        assert sent == sorted(tuple(chunks) for place in story for chunks in place["got"]), op
        assert all(0 <= c < p for chunks in sent for c in chunks)
        if p > 1:
            assert any(chunks for chunks in sent)


def test_in_sub_groups_ranks_are_those_of_the_group_in_its_order():
    def work(group):
        half = group.split(group.rank % 2, key=-group.rank)
        half.all_reduce(np.ones(8), algorithm="ring")
        half.broadcast(np.ones(8), root=1, algorithm="tree")

    calls, _ = shown(trace_of(work, 6))
    ranks = {(op, min(call["ranks"])): call["ranks"] for (_, op, _), call in calls.items()}
    assert ranks["all_reduce", 0] == [4, 2, 0] and ranks["all_reduce", 1] == [5, 3, 1]
    assert ranks["broadcast", 0] == [2, 0, 4] and ranks["broadcast", 1] == [3, 1, 5]


def test_a_large_array_goes_in_rounds(monkeypatch):
    monkeypatch.setattr(messages.Messages, "room", 3 * (64 + 2 * 8))  # two numbers for each rank
    calls, stories = shown(trace_of(collective, 4, "all_reduce", "direct", 0, 5))
    (call,) = calls.values()
    assert call["rounds"] == 3  # five numbers on each rank
    assert len(stories[call["story"]][0]["got"]) == 6


def test_of_an_algorithm_of_ones_own_beginning_and_end_are_known():
    def swap(link, buf):
        link.add(buf, link.sendrecv(buf, 1 - link.rank, 1 - link.rank))

    calls, stories = shown(trace_of(lambda group: group.all_reduce(np.ones(4), algorithm=swap), 2))
    (call,) = calls.values()
    assert call["rounds"] == 0
    assert [place["states"] for place in stories[call["story"]]] == [
        [[1, 1], [3, 3]],
        [[2, 2], [3, 3]],
    ]


def test_what_came_before_the_page_begins_is_counted():
    def work(group):
        group.all_reduce(np.ones(4000), algorithm="ring")

    trace = trace_of(work, 4)
    (whole,) = collectives(trace, 0, trace.end + 1)["calls"]
    (later,) = collectives(trace, trace.end // 2, trace.end + 1)["calls"]
    assert whole["before"] == [(0, 0)] * 4
    assert all(0 < sent < 6 and 0 < got < 6 for sent, got in later["before"])


def test_none_of_more_ranks_than_can_be_read():
    assert not shown(trace_of(collective, 9, "all_reduce", "ring"))[0]
