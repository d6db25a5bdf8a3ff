"""A link checks that what it receives belongs to the same call."""

import numpy as np
import pytest

from minipar import run
from minipar.comm.frame import MAX_SIGNATURE
from minipar.comm.link import as_array
from minipar.errors import CallMismatch, UsageError


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
        pass

    with pytest.raises(UsageError, match=r"not Tensor; pass a Tensor's \.data"):
        as_array("send", Tensor())


def test_long_shapes_are_compared_in_full():
    """The longest name of an algorithm, of an op, of a dtype, and eight large dimensions."""
    signature = "mean complex128[10000, 10001, 10002, 10003, 10004, 10005, 10006, 10007]"
    assert len(signature) <= MAX_SIGNATURE
