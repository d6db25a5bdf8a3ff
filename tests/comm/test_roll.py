"""Who may begin again, and when; with real processes: test_losses.py."""

import numpy as np
import pytest

from minipar.comm.exchange import CELL
from minipar.comm.failure import Failure
from minipar.comm.losses import Lost, Standing
from minipar.comm.roll import Roll
from minipar.comm.segment import Segment, create_segment


@pytest.fixture
def roll():
    segment = Segment(create_segment(3), 3)
    return Roll(segment, segment.board(), range(3), 3, restarts=2)


def test_a_rank_begins_again_when_all_who_are_there_have_heard(roll):
    board = roll.segment.board()
    assert roll.lose(Failure(1, "rank 1 is gone"), True) == Lost(1, 0, "rank 1 is gone", True)
    roll.ports[1] = 0
    assert roll.due({0, 2}) == []
    board.note_heard(0, 1)
    assert roll.due({0, 2}) == [] and roll.due({0}) == [1]
    board.note_heard(2, 1)
    assert roll.due({0, 2}) == [1]
    roll.clear(1, {0, 2})
    assert board.heard(1) == 1 and roll.incarnation(1) == 1 and roll.restarts == 1


def test_what_lies_between_two_that_are_not_there_is_made_as_new(roll):
    ring, cells = roll.segment.ring(1, 2), roll.segment.cells().cast("Q")
    other = roll.segment.ring(1, 0)
    for written in (ring, other):
        written.write_some(memoryview(b"old"))
    cells[(2 * 3 + 1) * CELL + 7] = 5
    for rank in (1, 2):
        roll.lose(Failure(rank, f"rank {rank} is gone"), True)
    roll.clear(1, {0})
    assert not ring.readable() and cells[(2 * 3 + 1) * CELL + 7] == 0
    assert other.readable()  # which is rank 0's to clear
    assert (
        ring.write_some(memoryview(b"new")) == 3 and ring.read_some(memoryview(bytearray(9))) == 3
    )


def test_a_rank_that_begins_is_told_who_is_missing(roll):
    roll.lose(Failure(1, "rank 1 is gone"), True)
    roll.lose(Failure(2, "the disk is full", kind="OSError"), False)
    assert roll.standing({0}) == Standing(tuple(roll.lost), frozenset({1}), frozenset({0}))
    assert roll.lost[1].why == "rank 2 raised OSError: the disk is full"
    assert roll.for_good == {2} and roll.failures.keys() == {1, 2}
    assert roll.first.rank == 2


def test_a_rank_that_is_lost_in_the_midst_of_a_wait_does_not_wait_any_more(roll):
    board = roll.segment.board()
    board.begin_wait(1, 0)
    board.second_turns(1, 0)
    roll.lose(Failure(1, "rank 1 is gone"), True)
    assert not board.waits(1) % 2 and not board.second(1) % 2
    assert np.all([board.waits(r) == 0 for r in range(3)])
