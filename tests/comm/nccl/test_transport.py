"""Arrays of a GPU through NCCL: a fake one, on the stand-in for CuPy; the ranks are threads.

The stand-in finds memory that two streams use without an event between, and the fake NCCL sends
that would wait for each other.
"""

import threading

import numpy as np
import pytest

from minipar.errors import CallMismatch, CommError, CommTimeout, PeerLost
from minipar.testing.transports import PROMISES, every_collective_works
from tests.comm import gpu_ranks, ranks
from tests.comm.gpus import Ranks, on_gpus

MESSAGES = tuple(promise for promise in PROMISES if promise is not every_collective_works)


@pytest.mark.parametrize("p", [1, 2, 4])
def test_it_keeps_the_promises_of_a_transport_with_arrays_of_a_gpu(p, cupy):
    assert all(on_gpus(gpu_ranks.conformance, p, MESSAGES))


@pytest.mark.parametrize("p", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_collective_by_every_algorithm(p, cupy):
    assert all(on_gpus(gpu_ranks.conformance, p, (every_collective_works,)))


@pytest.mark.parametrize("p", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_arrays_of_host_memory_go_as_ever(p, cupy):
    assert all(on_gpus(ranks.conformance, p))


@pytest.mark.parametrize("p", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_dtype_and_op_is_numpys(p, cupy):
    pytest.importorskip("ml_dtypes")
    few = {"sizes": (0, 7), "algorithms": (None, "ring") if p == 3 else (None,)}
    few_ways = {"algorithms": few["algorithms"]}
    counts = on_gpus(lambda group: gpu_ranks.reduced(group, **few), p)
    assert counts == [106 * len(few["algorithms"])] * p
    assert all(on_gpus(lambda group: gpu_ranks.moved(group, sizes=(0, 5), **few_ways), p))
    assert all(on_gpus(gpu_ranks.nan_spreads, p))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_handles_and_groups(p, cupy):
    assert all(on_gpus(gpu_ranks.asynchronous, p))
    assert all(on_gpus(gpu_ranks.groups, p))


def test_a_message_overtakes_a_collective(cupy):
    assert all(on_gpus(gpu_ranks.crossing, 2))


def test_by_nccl_and_by_hand_the_bits_are_the_same(cupy):
    assert on_gpus(gpu_ranks.by_nccl_and_by_hand, 3) == [10_006 * 6] * 3


def test_arrays_are_received_into_others(cupy):
    for rank, said in enumerate(on_gpus(gpu_ranks.received_into, 2)):
        assert f"rank {1 - rank} sent float64[5] on cuda, expected float64[5]." in said


def test_the_default_for_a_gpu_is_nccls_own(cupy):
    ranks_ = Ranks(2)

    def work(group):
        x = cupy.asarray(np.ones(3))
        group.all_reduce(x)
        group.all_to_all(cupy.asarray(np.ones((2, 3))))
        group.all_reduce(x, algorithm="ring")
        group.all_reduce(x.get())

    ranks_.run(work)
    calls = [name for rank, name in ranks_.nccl.calls if rank == 0]
    assert calls.count("allReduce") == 1 and not ranks_.nccl.complaints
    ranks_.end()


# -- what goes wrong ----------------------------------------------------------------------------


def test_ranks_that_disagree_do_not_enter_nccls_own_call(cupy):
    jobs = Ranks(3)
    jobs.run(gpu_ranks.fail, "shape")
    jobs.end()
    found = [str(error) for error in jobs.errors if isinstance(error, CallMismatch)]
    assert any("sum float32[3] on cuda by native" in text for text in found)
    assert not jobs.nccl.complaints


def test_a_rank_that_has_returned_is_named(cupy):
    jobs = Ranks(2, timeout_s=5.0)

    def work(group):
        group.all_reduce(cupy.asarray(np.ones(3)))
        if group.rank == 1:
            jobs.hosts[0].note_finished(1)
            return
        group.all_reduce(cupy.asarray(np.ones(3)))

    jobs.run(work, close=False)
    jobs.end()
    assert isinstance(jobs.errors[0], PeerLost) and "rank 1: all_reduce #0" in str(jobs.errors[0])


def test_a_collective_that_hangs_on_the_gpu_ends_after_the_timeout_and_is_named(cupy):
    jobs = Ranks(2, timeout_s=0.5, check=False)
    ended = threading.Event()

    def work(group):
        x = cupy.asarray(np.ones(3))
        group.all_reduce(x).get()
        if group.rank == 1:
            ended.wait(20)  # it does not come, and says nothing
            return
        total = group.all_reduce(x)
        total.get()  # nothing but the abort ends this
        try:
            group.all_reduce(x)
        finally:
            ended.set()

    jobs.run(work, close=False)
    jobs.end()
    error = jobs.errors[0]
    assert isinstance(error, CommTimeout)
    assert "for any rank in all_reduce #1 (sum float64[3] on cuda by native)" in str(error)
    assert "the GPU had not finished" in str(error)


def test_what_the_launcher_says_ends_what_is_on_the_gpu(cupy):
    jobs = Ranks(2, check=False)
    ended = threading.Event()

    def work(group):
        x = cupy.asarray(np.ones(3))
        group.all_reduce(x).get()
        if group.rank == 1:
            ended.wait(20)
            return
        total = group.all_reduce(x)
        jobs.hosts[0].note_failure(PeerLost("rank 1 was killed"))
        total.get()
        try:
            group.all_reduce(x)
        finally:
            ended.set()

    jobs.run(work, close=False)
    jobs.end()
    assert isinstance(jobs.errors[0], PeerLost)
    assert str(jobs.errors[0]).startswith("rank 1 was killed; rank 0 was in all_reduce #2")


def test_an_error_of_nccls_is_the_failure_of_the_rank_that_it_has_lost(cupy):
    jobs = Ranks(2)

    def work(group):
        x = cupy.asarray(np.ones(3))
        group.all_reduce(x).get()
        if group.rank == 1:
            return

        def refuse(*_):
            raise jobs.nccl.NcclError(6)

        jobs.transports[0]._handles[0].allReduce = refuse
        threading.Timer(0.2, jobs.hosts[0].note_failure, [PeerLost("rank 1 was killed")]).start()
        jobs.transports[0].check_native = False
        group.all_reduce(x)

    jobs.run(work, close=False)
    jobs.end()
    assert isinstance(jobs.errors[0], PeerLost) and "rank 1 was killed" in str(jobs.errors[0])


def test_without_news_it_is_an_error_of_nccls(cupy, monkeypatch):
    monkeypatch.setattr("minipar.comm.nccl.desk.NEWS_S", 0.1)
    jobs = Ranks(1)

    def work(group):
        x = cupy.asarray(np.ones(3))
        group.all_reduce(x).get()

        def refuse(*_):
            raise jobs.nccl.NcclError(3)

        jobs.transports[0]._handles[0].allReduce = refuse
        group.all_reduce(x)

    jobs.run(work, close=False)
    jobs.end()
    assert isinstance(jobs.errors[0], CommError) and "NCCL reports" in str(jobs.errors[0])


def test_arrays_are_kept_until_nccl_has_done_with_them(cupy):
    """The fake NCCL complains if memory goes before the operation has ended."""

    def work(group):
        for _ in range(20):
            group.all_reduce(cupy.asarray(np.ones(1000)), async_op=True)
            group.isend(cupy.asarray(np.ones(1000)), (group.rank + 1) % group.size)
        for _ in range(20):
            group.recv((group.rank - 1) % group.size)

    on_gpus(work, 2)
