"""Showing arrays in shared memory: nothing is overwritten too soon, strangers are noticed."""

import threading

import numpy as np
import pytest

import minipar
from minipar.comm.frame import Call
from minipar.errors import CallMismatch
from tests.comm import ranks
from tests.comm.onehost import Host, compare, enter


def test_shown_and_exchanged():
    def work(r, circle_of):
        circle, seen = enter(circle_of(0, 1, 2), 0), []
        for k in range(20):  # over and over, through both slots
            parts = [np.full(3 + i, 10 * k + i) for i in range(3)]  # as long as the rank's number
            seen.append([array.tolist() for array in circle.show(parts)])
            pieces = [np.full(2 + i, 100 * r + 10 * k + i) for i in range(3)]
            seen.append([array.tolist() for array in circle.exchange(pieces)])
        circle.release()
        return seen

    for r, seen in enumerate(Host(3).run(work)):
        for k in range(20):
            assert seen[2 * k] == [[10 * k + i] * (3 + i) for i in range(3)]
            assert seen[2 * k + 1] == [[100 * i + 10 * k + r] * (2 + r) for i in range(3)]


def test_groups_that_overlap_do_not_overwrite_what_others_still_read():
    """Rank 1 is in three circles in turn; each reader looks only after rank 1 has gone on."""
    rounds, gate = 50, threading.Barrier(2)

    def work(r, circle_of):
        found = []
        for k in range(rounds):
            for other in (0, 2):
                if r in (1, other):
                    circle = enter(circle_of(*sorted((1, other))), k)
                    seen = circle.show([np.full(8, 100 * r + k)] * 2)
                    if r == 0:
                        gate.wait()  # until rank 1 has filled its next slot for rank 2
                    found += [int(array[0]) for array in seen]
                    circle.release()
            if r == 1:
                gate.wait()
        return found

    zero, one, two = Host(3).run(work)
    assert zero == [n for k in range(rounds) for n in (k, 100 + k)]
    assert two == [n for k in range(rounds) for n in (100 + k, 200 + k)]
    assert one == [n for k in range(rounds) for n in (k, 100 + k, 100 + k, 200 + k)]


def test_a_root_may_run_ahead_but_not_far():
    def work(r, circle_of):
        circle = circle_of(0, 1)
        out = []
        for k in range(30):
            enter(circle, k, op="broadcast")
            out.append(int(circle.show_from(0, np.full(4, k if r == 0 else -1))[0]))
            circle.release()
        return out

    assert Host(2).run(work) == [list(range(30))] * 2


def test_a_note_is_not_written_over_before_it_has_been_read():
    """Two broadcasts are under way, and the root comes to a barrier, before anybody has looked."""
    host = Host(2)

    def work(r, circle_of):
        circle, seen = circle_of(0, 1), []
        if r == 1:
            assert host.somebody_waits.wait(20)
        for k in range(2):
            enter(circle, k, host, r, "broadcast")
            seen.append(int(circle.show_from(0, np.full(4, k if r == 0 else -1))[0]))
            circle.release()
        enter(circle, 2, host, r, "barrier").meet()
        return seen

    assert host.run(work) == [[0, 1]] * 2


def test_windows_only_if_all_can_be_reached():
    host = Host(2)
    arrays = [host.exchanges[r].heap.empty((5,), np.dtype("int64")) for r in range(2)]

    def work(r, circle_of):
        circle = enter(circle_of(0, 1), 0)
        arrays[r][:] = r
        windows = circle.windows(arrays[r][1:])
        windows[1 - r].write(2 * r, np.array([10 + r]))  # written by the other one
        circle.meet()
        private = np.zeros(4, np.int64)
        nobody = circle.windows(private if r else arrays[r][1:])
        circle.release()
        return nobody

    assert host.run(work) == [None, None]
    assert arrays[0].tolist() == [0, 0, 0, 11, 0] and arrays[1].tolist() == [1, 10, 1, 1, 1]


def test_another_call_is_noticed_by_all():
    host = Host(2)

    def work(r, circle_of):
        circle = enter(circle_of(0, 1), 4, host, r, ("all_reduce", "all_gather")[r], f"x.py:{r}")
        circle.show([np.zeros(2)] * 2)

    for r, error in enumerate(host.run(work)):
        assert isinstance(error, CallMismatch)
        assert f"rank {r}/2" in str(error)
        assert "x.py:0" in str(error) and "x.py:1" in str(error) and "all_gather #4" in str(error)


def test_the_same_call_from_another_line_is_legal():
    host = Host(2)

    def work(r, circle_of):
        circle = enter(circle_of(0, 1), 4, host, r, site=f"x.py:{r}")
        return circle.show([np.full(1, i) for i in range(2)])[1 - r].tolist()

    assert host.run(work) == [[1], [0]]


@pytest.mark.parametrize("p", [3, 4, *(pytest.param(p, marks=pytest.mark.slow) for p in (2, 5))])
def test_processes_have_the_same_bits_as_threads(p):
    found = [minipar.run(ranks.sums, p, backend=b, timeout_s=60) for b in ("local", "process")]
    for local, process in zip(*found, strict=True):
        assert local == process


@pytest.mark.parametrize("p", [2, 3])
def test_shared_arrays_are_reduced_in_place(p):
    assert minipar.run(ranks.shared_arrays, p, backend="process", timeout_s=60) == [True] * p
    assert minipar.run(ranks.shared_arrays, p) == [True] * p


def test_shared_arrays_with_gaps_are_not_reduced_in_place():
    """A flat view with strides is flat already: the others once wrote between its elements."""
    run = minipar.run(ranks.shared_arrays_with_gaps, 2, backend="process", timeout_s=60)
    assert run == [True] * 2


def test_two_that_both_believe_to_be_the_root_find_out_in_the_next_call():
    host = Host(2)

    def work(r, circle_of):
        circle = circle_of(0, 1)
        call = Call(0, 0, "broadcast", f"from {r}", f"x.py:{r}")
        host.segment.board().write(r, call)
        circle.enter(call, None, lambda other, theirs: compare(r, other, call, theirs))
        circle.show_from(r, np.zeros(1))
        circle.release()
        enter(circle, 1, host, r)
        circle.show([np.zeros(1)] * 2)
        circle.release()
        return "went on"

    errors = [end for end in host.run(work) if isinstance(end, CallMismatch)]
    assert errors and all("from 0" in str(e) and "from 1" in str(e) for e in errors)
