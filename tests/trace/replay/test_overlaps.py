"""Communication beside backward: buckets, when they were ready, and how much was hidden."""

import pytest

from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.mesh import Mesh
from minipar.trace.replay.overlaps import overlaps, short, steps_between
from minipar.trace.totals import shares, window_of
from tests.trace.replay.runs import SLOW, beside_backward, trace_of


@pytest.fixture(scope="module")
def trace():
    return trace_of(beside_backward, 2)


def length(rows):
    return sum(row[1] - row[0] for row in rows)


def test_what_is_hidden_is_what_totals_call_overlapped():
    """Of more than backward has time for, and less than all."""
    trace = trace_of(beside_backward, 2, cluster=SLOW)
    found = overlaps(trace, 0, trace.end + 1)
    assert [scene["step"] for scene in found] == [0, 1]
    for scene in found:
        window = window_of(trace, scene["step"])
        assert (scene["begin"], scene["end"]) == window
        for rank, lane in zip(trace.ranks, scene["ranks"]):
            overlapped = shares(rank, *window).overlapped
            assert length(lane["hidden"]) == overlapped
            assert 0 < overlapped < length(lane["calls"][:2])


def test_a_bucket_goes_when_its_last_gradient_is_final(trace):
    """A backward of 2 ms for each of three blocks; a bucket for each, the last one at the end."""
    lane = overlaps(trace, 0, trace.end + 1)[1]["ranks"][0]
    assert [name for *_, name in lane["layers"]] == ["blocks.2", "blocks.1", "blocks.0"]
    assert [end - begin for begin, end, _ in lane["layers"]] == [2_000_000] * 3
    ends = [end for _, end, _ in lane["layers"]]
    assert [begin for begin, *_ in lane["calls"]] == ends
    assert [when for when, _ in lane["ready"]] == ends[:2]
    assert [away for *_, away in lane["calls"]] == [True, True, False]
    assert length(lane["hidden"]) == length(lane["calls"][:2])


def test_buckets_after_backward_hide_nothing():
    trace = trace_of(beside_backward, 2, 2, BucketedDataParallel)
    scene = overlaps(trace, 0, trace.end + 1)[1]
    assert all(len(lane["calls"]) == 3 and not lane["hidden"] for lane in scene["ranks"])


def test_without_sums_of_gradients_there_is_nothing():
    trace = trace_of(lambda group: group.spend(1e-3), 2)
    assert overlaps(trace, 0, trace.end + 1) == []
    assert steps_between(trace, 0, 9) == [(-1, 0, 9, {})]


def test_replicas_are_shown_together():
    def work(group):
        beside_backward(Mesh(group, dp=2, tp=2).dp, 1)

    trace = trace_of(work, 4)
    assert overlaps(trace, 0, trace.end + 1)[0]["groups"] == [[0, 2], [1, 3]]


def test_modules_are_called_by_their_blocks():
    assert [short(name) for name in ("blocks.3.mlp.up", "head", "up.weight", "a.b.1")] == [
        *("blocks.3", "head", "up", "a.b.1")
    ]
