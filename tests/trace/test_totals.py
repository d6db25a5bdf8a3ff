"""Intervals against sets of moments, and shares against a rank whose day is known."""

import numpy as np
import pytest

from minipar import Cluster
from minipar.errors import UsageError
from minipar.events import Event
from minipar.spans import Span, span
from minipar.trace.totals import (
    bytes_by_axis,
    common,
    merged,
    only_step,
    report,
    shares,
    steps_of,
    waiting,
    window_of,
    without,
)
from minipar.trace.trace_file import RankTrace, Trace
from minipar.trace.traced import traced


def moments(intervals):
    return {t for begin, end in intervals for t in range(begin, end)}


@pytest.mark.parametrize("seed", range(20))
def test_intervals_are_sets_of_moments(seed):
    rng = np.random.default_rng(seed)
    a, b = (
        [tuple(sorted(rng.integers(0, 40, 2).tolist())) for _ in range(rng.integers(0, 7))]
        for _ in "ab"
    )
    x, y = merged(a), merged(b)
    assert moments(x.tolist()) == moments(a)
    assert (x[1:, 0] > x[:-1, 1]).all()
    assert moments(common(x, y).tolist()) == moments(a) & moments(b)
    assert moments(without(x, y).tolist()) == moments(a) - moments(b)


def call(begin, end, op="all_reduce", group=8, peer=-1, nbytes=80):
    return Event(0, peer, op, 0, nbytes, "f.py:1", "ring", group, begin, end)


RANK = RankTrace(
    0,
    0,
    100,
    [
        Span("forward", "", 0, 40, 0, 3),
        Span("forward", "blocks.0", 5, 35, 0, 3, 1),  # counts once
        Span("wait", "rank 1", 12, 18, 0, 3, 1),
        Span("backward", "", 40, 80, 0, 3),
        Span("wait", "rank 1", 52, 58, 0, 3, 0, True),  # the second thread waits, not the rank
        Span("optimizer", "", 80, 90, -1, 3),
    ],
    [call(10, 20), call(50, 85)],
    [False, True],
    [call(11, 12, peer=1, nbytes=30), call(60, 60, peer=1, nbytes=50, group=0)],
    [],
    [],
    {8: ("tp", (0, 1))},
)
TRACE = Trace("process", False, [RANK], 0)


def test_every_moment_counts_once():
    found = shares(RANK, 0, 100)
    assert found == (40 + 40 + 10 - 10, 10 - 6, 6, 35, 100)
    assert shares(RANK, 15, 55) == (20 + 15, 2, 3, 5, 40)


def test_bytes_by_axis_and_window():
    assert bytes_by_axis(TRACE, 0, 100) == [{"tp": 30, "world": 50}]
    assert bytes_by_axis(TRACE, 50, 100) == [{"world": 50}]
    assert report(TRACE, 0, 100)[0]["computing"] == 0.8


def test_steps_are_found_or_named():
    assert steps_of(TRACE) == range(3, 4)
    inside = Span("forward", "F0", 95, 99, 0, 3, 1)  # of an evaluation after the step
    later = Trace("process", False, [RANK._replace(spans=[*RANK.spans, inside])], 0)
    assert window_of(TRACE, 3) == window_of(later, 3) == (0, 90) and window_of(TRACE, None) == (
        0,
        100,
    )
    assert window_of(TRACE, last_ms=2e-5) == (80, 100) and window_of(TRACE, last_ms=1) == (0, 100)
    with pytest.raises(UsageError, match="step 7 is not in the trace, which has steps 3 to 3"):
        window_of(TRACE, 7)
    empty = Trace("local", False, [RANK._replace(spans=[])], 0)
    with pytest.raises(UsageError, match="no steps of a training"):
        window_of(empty, 0)


def test_what_a_rank_does_for_other_steps_is_left_out():
    ahead = Span("forward", "", 90, 100, 0, 4)
    trace = Trace("local", False, [RANK._replace(spans=[*RANK.spans, ahead])], 0)
    assert only_step(trace, 3).ranks == [RANK]
    assert only_step(trace, 4).ranks[0].spans == [ahead]


@pytest.mark.parametrize("last", [float("nan"), float("inf"), -5.0, 0.0])
def test_last_moments_that_cannot_be(last):
    with pytest.raises(UsageError, match=r"--last .*: a number of milliseconds above 0"):
        window_of(TRACE, last_ms=last)


def test_who_waits_for_a_message_that_is_on_the_wire_moves_bytes():
    def work(group):
        if group.rank == 0:
            with span("forward"):
                group.spend(10e-6)
            group.send(np.zeros(1000, np.uint8), 1)
            group.send(np.zeros(1000, np.uint8), 1)
        else:
            group.recv(0)
            group.spend(5e-6)  # meanwhile the second one comes
            group.recv(0)

    _, trace = traced(work, 2, cluster=Cluster(1e-6, 1e-9, 0))
    found = [shares(rank, 0, trace.end) for rank in trace.ranks]
    assert trace.end == 17000
    assert found[0] == (10_000, 4000, 0, 0, 17_000)
    assert found[1] == (0, 2000, 10_000, 0, 17_000)
    assert waiting(trace.ranks[1]).tolist() == [[0, 10_000]]


def test_where_time_is_measured_waiting_is_what_was_measured():
    _, trace = traced(lambda group: group.barrier(), 2)
    assert not any(rank.wire for rank in trace.ranks)
