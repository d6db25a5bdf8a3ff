"""Ranks that pass a baton: one at a time, the same order every time, deadlocks named at once."""

import numpy as np
import pytest

import minipar
from minipar.errors import CallMismatch, Deadlock, PeerLost, UsageError


def test_exactly_one_rank_runs_at_a_time_and_always_in_the_same_order():
    def trace_of_a_run():
        trace, running = [], []

        def work(group):
            for turn in range(5):
                running.append(group.rank)
                assert len(running) == 1
                trace.append((group.rank, turn))
                running.pop()
                group.sendrecv(np.zeros(1), (group.rank + 1) % 4, (group.rank - 1) % 4)

        minipar.run(work, 4)
        return trace

    first = trace_of_a_run()
    assert len(first) == 20
    assert all(trace_of_a_run() == first for _ in range(5))


def test_two_receives_that_wait_for_each_other_are_named_with_their_lines():
    with pytest.raises(Deadlock) as caught:
        minipar.run(lambda g: g.recv(1 - g.rank), 2)
    text = str(caught.value)
    assert "rank 0 --> rank 1   recv #0 (from 1) at" in text
    assert "rank 1 --> rank 0   recv #0 (from 0) at" in text
    assert "a circle: 0 -> 1 -> 0" in text
    assert "test_local.py:" in text


def test_a_rank_that_returned_is_named():
    with pytest.raises(Deadlock, match="rank 1 has finished"):
        minipar.run(lambda g: g.rank == 1 or g.barrier(), 3)


def test_what_came_but_was_not_asked_for_is_named():
    def work(group):
        if group.rank == 1:
            group.send(np.zeros(2), 0)
            return
        group.all_reduce(np.zeros(2))

    with pytest.raises(Deadlock, match=r"not asked for so far: rank 1's send #0 \(to 0\) at"):
        minipar.run(work, 2)


def test_a_rank_alone_that_waits_for_itself():
    with pytest.raises(Deadlock, match="rank 0 waits for rank 0"):
        minipar.run(lambda g: g.recv(0), 1)


def test_the_failing_ranks_own_exception_comes_out_and_the_others_stop():
    ended = []

    def work(group):
        if group.rank == 2:
            raise KeyError("mine")
        try:
            group.barrier()
        except PeerLost as error:
            ended.append(str(error))
            raise

    with pytest.raises(KeyError, match="mine"):
        minipar.run(work, 4)
    assert len(ended) == 3
    assert all("rank 2 raised KeyError: 'mine'; rank" in text for text in ended)


@pytest.mark.parametrize("call", ["shape", "dtype", "op", "order"])
def test_calls_that_differ_name_both_sides(call):
    def work(group):
        x = np.zeros(4, np.float32)
        if group.rank == 1 and call == "order":
            group.barrier()
        if group.rank == 1:
            x = {"shape": x[:3], "dtype": x.astype(float)}.get(call, x)
        group.all_reduce(x, op="mean" if (group.rank, call) == (1, "op") else "sum")

    with pytest.raises(CallMismatch) as caught:
        minipar.run(work, 2)
    text = str(caught.value).partition("who waits for whom")[0]
    assert "rank 0" in text and "rank 1" in text and text.count("test_local.py:") == 2
    assert "expected" in text and "usual causes" in text


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda g: g.send(np.zeros(1), 5), "there is no rank 5"),
        (lambda g: g.recv(-2), "there is no rank -2"),
        (lambda g: g.broadcast(np.zeros(1), root=2), "there is no rank 2"),
        (lambda g: g.all_reduce(np.zeros(1), op="avg"), "op is one of sum, mean"),
        (lambda g: g.all_reduce(np.zeros(1, int), op="mean"), "mean of int64"),
        (lambda g: g.all_reduce(np.zeros(2), out=np.zeros(3)), "out is float64"),
        (lambda g: g.all_reduce(object()), "takes arrays, not object"),
        (lambda g: g.reduce_scatter(np.float64(1)), "at least one dimension"),
    ],
)
def test_wrong_use_is_one_sentence(call, says):
    with pytest.raises(UsageError, match=says):
        minipar.run(call, 2)
