"""Pipelines in time: every action is there, when it was, and the bubble is the formula's."""

import numpy as np
import pytest

from minipar.parallel.schedule import gpipe, interleaved, one_f_one_b, zero_bubble
from minipar.spans import at_step, span
from minipar.trace.replay.pipelines import pipelines
from tests.trace.replay.runs import FREE, staged, trace_of

SECONDS = {"F": 1e-3, "B": 2e-3, "I": 1e-3, "W": 1e-3}


def shown(trace):
    return pipelines(trace, 0, trace.end + 1)


def bubble(one, stage):
    parts = [part for action in one["actions"] if action[0] == stage for part in action[4]]
    return 1 - sum(b - a for a, b in parts) / (one["end"] - one["begin"])


@pytest.mark.parametrize(("p", "m"), [(2, 2), (3, 4), (4, 8)])
@pytest.mark.parametrize("schedule", [gpipe, one_f_one_b])
def test_bubble_is_the_formula_with_equal_stages(schedule, p, m):
    trace = trace_of(staged, p, schedule(p, m), SECONDS, cluster=FREE)
    (one,) = shown(trace)
    assert one["ranks"] == list(range(p)) and len(one["actions"]) == 2 * m * p
    for stage in range(p):
        assert bubble(one, stage) == pytest.approx((p - 1) / (m + p - 1), abs=1e-9)


def test_actions_are_where_they_were():
    (one,) = shown(trace_of(staged, 2, gpipe(2, 2), SECONDS, cluster=FREE))
    ms = {(s, f"{phase}{m}"): np.array(parts) / 1e6 for s, phase, m, _, parts, _ in one["actions"]}
    expected = {"F0": (1, 2), "F1": (2, 3), "B1": (3, 5), "B0": (5, 7)}
    for name, (begin, end) in expected.items():
        assert ms[1, name].tolist() == [[begin, end]]
    assert ms[0, "B1"].tolist() == [[5, 7]]


def test_chunks_and_halves_of_backward_keep_their_names():
    (one,) = shown(trace_of(staged, 2, interleaved(2, 2, 2), SECONDS, cluster=FREE))
    assert {tuple(action[1:4]) for action in one["actions"]} == {
        (phase, m, c) for phase in "FB" for m in range(2) for c in range(2)
    }
    (one,) = shown(trace_of(staged, 2, zero_bubble(2, 4), SECONDS, cluster=FREE))
    assert {action[1] for action in one["actions"]} == set("FIW")


def test_each_replica_and_each_step_is_one():
    def work(group):
        for step in range(3):
            at_step(step)
            staged(group, gpipe(2, 2), SECONDS, dp=2)

    found = shown(trace_of(work, 4, cluster=FREE))
    assert [(one["step"], one["ranks"]) for one in found] == [
        (step, ranks) for step in range(3) for ranks in ([0, 1], [2, 3])
    ]
    trace = trace_of(staged, 4, gpipe(4, 2), SECONDS, 0, cluster=FREE)  # no axis is called pp
    assert [one["ranks"] for one in shown(trace)] == [[0, 1, 2, 3]]


def test_waiting_for_a_neighbour_is_bubble_and_inside_a_collective_it_is_not():
    def work(group):  # rank 0 waits for rank 1 inside the all_reduce, rank 1 for a message
        with span("forward", "F0", 0):
            if group.rank:
                group.recv(0)
                group.spend(2e-3)
            else:
                group.spend(1e-3)
                group.isend(np.ones(1), 1)
            group.all_reduce(np.ones(1), algorithm="naive")

    (one,) = shown(trace_of(work, 2, cluster=FREE))
    parts = {stage: parts for stage, *_, parts, _ in one["actions"]}
    assert parts == {0: [[0, 3_000_000]], 1: [[1_000_000, 3_000_000]]}


def test_what_is_computed_again_is_marked():
    def work(group):
        with span("backward", "B0", 0):
            with span("recompute", "layer"):
                group.spend(1e-3)
            group.spend(2e-3)

    (one,) = shown(trace_of(work, 1, cluster=FREE))
    assert one["actions"] == [[0, "B", 0, 0, [[0, 3_000_000]], [[0, 1_000_000]]]]
