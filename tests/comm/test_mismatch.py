"""The sentence that says what each rank called, and where."""

from minipar.comm.frame import Call
from minipar.comm.mismatch import mismatch, world_suffix

MINE = Call(0, 3, "all_reduce", "sum float32[4]", "a.py:1")


def test_another_call_and_the_same_call_with_something_else():
    other = mismatch(MINE, Call(0, 4, "barrier", "", "b.py:2"), 1, 0, (0, 1))
    assert str(other).startswith(
        "rank 1/2, all_reduce #3: rank 0 sent barrier #4, expected all_reduce #3 sum float32[4].\n"
        "  rank 1 at a.py:1\n  rank 0 at b.py:2\n"
    )
    same = mismatch(MINE, MINE._replace(signature="sum float32[5]"), 1, 0, (0, 1))
    assert "rank 0 sent sum float32[5], expected sum float32[4].\n" in str(same)
    said = mismatch(MINE, MINE, 1, 0, (0, 1), "is asleep")
    assert "#3: rank 0 is asleep.\n" in str(said)


def test_ranks_of_a_group_and_of_the_world():
    assert world_suffix((0, 3), 0) == ""
    assert world_suffix((0, 3), 1) == " (world rank 3)"
    error = mismatch(MINE, MINE, 1, 0, (2, 3), "sent nothing")
    assert "rank 1/2 (world rank 3), all_reduce #3: rank 0 (world rank 2) sent" in str(error)
