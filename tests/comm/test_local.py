"""Ranks that pass a baton: one at a time, the same order every time, deadlocks named at once."""

import threading

import numpy as np
import pytest

import minipar
from minipar.comm.group import Group
from minipar.comm.local import LocalTransport, LocalWorld
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
    assert "rank 0 waits for rank 1 in recv #0 at" in text
    assert "rank 1 waits for rank 0 in recv #0 at" in text
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

    with pytest.raises(Deadlock, match="not asked for so far: rank 1's send #0 at"):
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


@pytest.mark.parametrize("buffer_bytes", [0, 8, 1 << 20])
def test_only_without_buffers_is_it_a_deadlock_when_both_send_first(buffer_bytes):
    """With them, also a send that is larger than the buffer goes to a rank that waits."""

    def both_send_first(group):
        group.send(np.zeros(2), 1 - group.rank)  # 16 bytes
        return group.recv(1 - group.rank)

    world, outcome = LocalWorld(2, buffer_bytes), []

    def live(rank):
        world.enter(rank)
        try:
            both_send_first(Group(LocalTransport(world, rank)))
            outcome.append("done")
        except Deadlock:
            outcome.append("deadlock")
        world.leave(rank)

    threads = [threading.Thread(target=live, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    world.start()
    for thread in threads:
        thread.join()
    assert outcome == (["done"] if buffer_bytes else ["deadlock"]) * 2


def test_a_large_message_to_oneself():
    def work(group):
        x = np.arange(100_000)
        group.send(x, group.rank)
        x[:] = 0
        return group.recv(group.rank)

    assert (minipar.run(work, 1)[0] == np.arange(100_000)).all()


def test_a_receiver_of_an_unbuffered_send_has_its_own_copy():
    def work(group):
        x = np.full(100_000, group.rank)  # larger than the buffer
        send = group.isend(x, 1 - group.rank)
        got = group.recv(1 - group.rank)
        send.wait()
        group.barrier()
        x[:] = -1
        group.barrier()
        return int(got[0])

    assert minipar.run(work, 2) == [1, 0]


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
    text = str(caught.value)
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
