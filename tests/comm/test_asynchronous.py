"""Handles: calls go on beside the rank, in the order in which they were made."""

import threading
from collections import deque

import numpy as np
import pytest

import minipar
from minipar.errors import CallMismatch, Deadlock
from minipar.events import last
from tests.comm import ranks

BACKENDS = ["local", "process"]


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_collective_as_a_handle(backend, p):
    assert minipar.run(ranks.asynchronous_calls, p, backend=backend, timeout_s=30) == [True] * p


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rank_that_does_not_wait_yet_keeps_nobody(backend):
    """Rank 1 is waited for in the middle of rank 0's all-reduce, and the other way round."""
    found = minipar.run(ranks.crossing, 2, backend=backend, timeout_s=30)
    assert found == [(3.0, 7.0), (3.0, 7.0)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_plain_call_joins_the_queue(backend):
    order = minipar.run(ranks.plain_among_asynchronous, 2, backend=backend, timeout_s=30)
    assert order == [list(range(6))] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mismatch_is_raised_where_it_is_waited_for(backend):
    with pytest.raises(CallMismatch) as caught:
        minipar.run(ranks.asynchronous_mismatch, 2, backend=backend, timeout_s=30)
    assert "float64[3]" in str(caught.value) and "float64[4]" in str(caught.value)
    assert str(caught.value).count("ranks.py:") >= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_that_nobody_waits_for_is_raised_at_the_end(backend):
    with pytest.raises(CallMismatch, match="float64"):
        minipar.run(ranks.asynchronous_mismatch, 2, args=(False,), backend=backend, timeout_s=30)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_deadlock_behind_a_handle_is_told(backend):
    """Rank 0 queues a call that rank 1 never makes, and rank 1 waits for a message."""
    with pytest.raises(Deadlock) as caught:
        minipar.run(ranks.asynchronous_deadlock, 2, backend=backend, timeout_s=30)
    assert "rank 0 waits for rank 1" in str(caught.value)
    assert "rank 1 --> rank 0   recv #0" in str(caught.value)
    assert "all_reduce #0" in str(caught.value)


def test_the_number_is_taken_at_the_call():
    def work(group):
        handles = [group.all_reduce(np.ones(1), async_op=True) for _ in range(3)]
        numbers = [handle.call.sequence for handle in handles]
        for handle in reversed(handles):
            handle.wait()
        return numbers, [event.sequence for event in last() if event.peer == -1]

    assert minipar.run(work, 2) == [([0, 1, 2], [0, 1, 2])] * 2


def second_threads():
    return {thread for thread in threading.enumerate() if "asynchronous" in thread.name}


def test_one_thread_per_rank_and_none_left():
    before = second_threads()  # of earlier tests, about to end

    def work(group):
        half = group.split(group.rank % 2)
        handles = [g.all_reduce(np.ones(5), async_op=True) for g in (group, half) for _ in range(3)]
        most = len(second_threads() - before)
        for handle in handles:
            handle.wait()
        return most

    assert max(minipar.run(work, 4)) == 4
    for thread in second_threads():
        thread.join(10)
    assert not second_threads()


def test_a_local_run_with_handles_is_the_same_every_time():
    def work(group):
        x = np.arange(10.0) + group.rank
        handles = [group.all_reduce(x, async_op=True, algorithm=a) for a in ("ring", "tree")]
        group.send(x, (group.rank + 1) % 3)
        group.recv((group.rank - 1) % 3)
        for handle in handles:
            handle.wait()
        return [event[:5] for event in last()]

    assert minipar.run(work, 3) == minipar.run(work, 3)


def test_a_call_is_over_when_it_has_left_the_queue():
    """`close` once looked for the last of a queue that the second thread had just emptied."""
    seen = []

    class Queue(deque):
        def popleft(self):
            seen.append(self[0].over)
            return super().popleft()

    def work(group):
        group._worker.queue = Queue()
        group.barrier(async_op=True).wait()

    minipar.run(work, 2)
    assert seen == [False, False]
