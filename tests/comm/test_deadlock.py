"""The watch on a job of processes: what it takes for a deadlock, and what it does not."""

import os

import pytest

from minipar.comm import deadlock
from minipar.comm.deadlock import LASTING_S, LOOKS, DeadlockWatch, report
from minipar.comm.frame import Call
from minipar.comm.segment import Segment, create_segment
from minipar.comm.transport import ANY
from minipar.comm.whereabouts import FINISHED, Whereabouts


@pytest.fixture
def job(monkeypatch):
    """Two ranks that wait for each other, their watch, and a clock that the test moves."""

    class Job:
        now = 0.0

        def __init__(self):
            descriptor = create_segment(2)
            self.segment = Segment(descriptor, 2)
            os.close(descriptor)
            self.board, self.watch = self.segment.board(), DeadlockWatch(self.segment, 2)
            for rank in range(2):
                self.board.write(rank, Call(0, 3, "recv", "", f"file.py:{rank}"))
                self.board.begin_wait(rank, 1 - rank)

        def monotonic(self):
            return self.now

        def looks(self, n, living=(0, 1)):
            found = None
            for _ in range(n):
                self.now += 2 * LASTING_S / LOOKS
                found = found or self.watch.look(living)
            return found

    job = Job()
    monkeypatch.setattr(deadlock, "time", job)
    return job


def test_two_ranks_that_go_on_waiting_for_each_other(job):
    assert job.looks(LOOKS // 2) is None
    found = job.looks(LOOKS)
    assert "rank 0 --> rank 1   recv #3 at file.py:0" in found
    assert "rank 1 --> rank 0   recv #3 at file.py:1" in found


def test_many_quick_looks_are_not_enough(job):
    found = [job.watch.look((0, 1)) for _ in range(10 * LOOKS)]  # the clock stands still
    assert found == [None] * len(found)


def test_a_rank_that_does_not_wait_a_message_on_its_way_or_any_progress(job):
    job.board.end_wait(0)
    assert job.looks(5 * LOOKS) is None
    job.board.begin_wait(0, 1)
    job.segment.ring(1, 0).write_some(memoryview(b"message"))
    assert job.looks(5 * LOOKS) is None
    job.segment.ring(1, 0).read_some(memoryview(bytearray(7)))
    for _ in range(5):
        assert job.looks(LOOKS // 2) is None
        job.board.end_wait(1)  # it has got something, and waits for the next
        job.board.begin_wait(1, 0)
    assert job.looks(2 * LOOKS) is not None


def test_a_long_copy_from_the_memory_of_another_rank_is_progress(job):
    """Its header has left the ring, and both ranks wait: 1.5 GB once were taken for a deadlock."""
    for _ in range(5):
        assert job.looks(LOOKS // 2) is None
        job.board.fetched_some(1)
    assert job.looks(2 * LOOKS) is not None


def test_who_has_finished_does_not_count_and_nobody_is_no_deadlock(job):
    job.board.end_wait(0)
    assert "rank 0 has finished, rank 1 waits for rank 0" in job.looks(2 * LOOKS, living=(1,))
    assert job.looks(5 * LOOKS, living=()) is None


def waiting(*ranks):
    """The report of these: whom each waits for, and its last call."""
    fate = {True: FINISHED, False: ""}
    return report([Whereabouts((last,), whom, fate[whom is None]) for whom, last in ranks])


def test_the_report():
    text = waiting((ANY, "recv #0 at a:1"), (None, "send #4 at a:2"))
    assert text.startswith("no rank can go on: rank 0 waits for any rank, rank 1 has finished.\n")
    assert "  rank 0 --> any rank   recv #0 at a:1\n" in text
    assert text.endswith("  rank 1                has finished; its last call: send #4 at a:2")


def call(op, number, signature, group=0):
    return str(Call(group, number, op, signature, "a:1"))


@pytest.mark.parametrize(
    "last",
    [
        (
            call("reduce", 3, "sum to 0 float32[4] by tree"),
            call("reduce", 3, "sum to 1 float32[4]"),
        ),
        (call("barrier", 3, "by tree"), call("gather", 3, "to 1 float32[4]") + "; not asked for"),
    ],
)
def test_the_first_line_names_two_calls_that_stand_in_one_place(last):
    first, second = (text.partition(" at ")[0] for text in last)
    text = waiting((1, last[0]), (0, last[1])).partition("\n")[0]
    assert text == f"no rank can go on: rank 0 makes {first}, but rank 1 makes {second}."
    text = waiting((1, last[0]), (None, last[1])).partition("\n")[0]
    assert text == f"no rank can go on: rank 0 makes {first}, but rank 1 makes {second}."


@pytest.mark.parametrize(
    "last",
    [
        (call("recv", 3, ""), call("reduce", 3, "sum to 0 float32[4]")),
        (call("recv", 3, ""), call("send", 3, "")),  # numbers that count for one peer
        (call("barrier", 3, "by tree"), call("reduce", 4, "sum to 0 float32[4]")),
        (call("barrier", 3, "by tree"), call("reduce", 3, "sum to 0 float32[4]", group=2)),
        (call("barrier", 3, "by tree"), "none yet"),
    ],
)
def test_calls_that_need_not_be_the_same(last):
    assert "waits for rank 1, rank 1 waits" in waiting((1, last[0]), (0, last[1]))
