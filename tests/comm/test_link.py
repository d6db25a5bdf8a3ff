"""A link checks that what it receives belongs to the same call."""

import re

import numpy as np
import pytest

from minipar import run
from minipar.comm.frame import MAX_SIGNATURE
from minipar.comm.link import as_array
from minipar.errors import CallMismatch, Deadlock, UsageError


def test_a_send_of_another_shape_than_out():
    def work(group):
        if group.rank == 0:
            group.send(np.zeros(5, np.float32), 1)
        else:
            group.recv(0, out=np.zeros(4, np.float32))

    with pytest.raises(CallMismatch, match=r"rank 0 sent float32\[5\], expected float32\[4\]"):
        run(work, 2)


def test_a_later_call_of_the_same_kind_is_not_taken_for_this_one():
    """Rank 1 makes one all_reduce more, of another shape: its second meets rank 0's first."""

    def work(group):
        if group.rank == 1:
            group.barrier()
        group.all_reduce(np.zeros(3))
        group.barrier()

    with pytest.raises(CallMismatch, match=r"barrier #0|all_reduce #0"):
        run(work, 2)


def test_calls_may_stand_on_different_lines():
    def work(group):
        if group.rank == 0:
            return group.broadcast(np.ones(2))
        return group.broadcast(np.zeros(2))

    assert all((x == 1).all() for x in run(work, 2))


def test_tensors_are_refused_with_advice():
    class Tensor:
        data = np.zeros(1)

    with pytest.raises(UsageError, match=r"not Tensor; pass its \.data"):
        as_array("send", Tensor())


def test_a_subgroup_is_told_with_world_ranks_too():
    def mismatch(group):
        half = group.split(group.rank // 2)
        if half.world_ranks == (2, 3):
            half.all_reduce(np.zeros(3 + half.rank))

    with pytest.raises(CallMismatch) as caught:
        run(mismatch, 4)
    text = str(caught.value).partition("who waits for whom")[0]
    first, second = ("0", "1") if text.startswith("rank 0") else ("1", "0")
    world = {"0": "2", "1": "3"}
    assert text.startswith(f"rank {first}/2 (world rank {world[first]}), all_reduce #0: ")
    assert f"rank {second} (world rank {world[second]}) sent sum float64[" in text
    assert text.count("test_link.py:") == 2


def test_where_the_numbers_are_the_worlds_nothing_is_added():
    def mismatch(group):
        few = group.subgroup([0, 1])
        if few is not None:
            few.all_reduce(np.zeros(3 + few.rank))

    with pytest.raises(CallMismatch) as caught:
        run(mismatch, 3)
    assert "world" not in str(caught.value)


def test_waits_in_a_subgroup_say_which_numbers_they_use():
    def lonely(group):
        half = group.split(group.rank // 2)
        if group.rank == 3:
            half.recv(0)

    with pytest.raises(Deadlock) as caught:
        run(lonely, 4)
    text = str(caught.value)
    assert re.search(r"rank 3 --> rank 2   recv #0 of group \d+ \(from 2 of the w.*test_link", text)
    assert text.partition("\nthe last calls")[0].endswith(
        "These are ranks of the world; ranks 0 to 1 of this group are 2, 3"
    )


def test_long_shapes_are_compared_in_full():
    """The longest name of an algorithm, of an op, of a dtype, and eight large dimensions."""
    signature = "mean complex128[10000, 10001, 10002, 10003, 10004, 10005, 10006, 10007]"
    assert len(signature) <= MAX_SIGNATURE


def test_an_array_of_objects_cannot_be_sent():
    with pytest.raises(UsageError, match="all_gather: an array of dtype object cannot be sent"):
        run(lambda g: g.all_gather(np.array([{}, "x"], object)), 2)
