"""MPI's own collectives: equal to ours, never entered by ranks that disagree."""

import numpy as np
import pytest

from minipar import run
from minipar.comm import agreed
from minipar.comm.mpi import native
from minipar.errors import UsageError
from tests.comm.mpirun import ranks_do


@pytest.mark.parametrize("p", [pytest.param(p, marks=pytest.mark.slow) for p in (1, 3, 4)] + [2])
def test_native_gives_what_the_hand_written_algorithms_give(p):
    job = ranks_do(p, "native")
    assert (job.returncode, job.stdout) == (0, "done\n"), job.stderr


def test_ranks_that_disagree_do_not_enter_mpis_own_call():
    job = ranks_do(3, "fail", "native")
    assert job.returncode == 1
    assert "float64[3] by native" in job.stderr and "float64[2] by native" in job.stderr
    assert job.stderr.count("tests/comm/mpi_ranks.py:") >= 2  # both call sites


@pytest.mark.slow
def test_the_comparison_can_be_left_out():
    for options, messages in ((), 2), (["--no-check"], 0):
        job = ranks_do(3, "messages_of_native", options=options)
        assert (job.returncode, job.stdout) == (0, f"{messages}\ndone\n"), job.stderr


@pytest.mark.parametrize("backend", ["local", "process"])
def test_other_backends_say_that_they_have_no_mpi(backend):
    with pytest.raises(UsageError, match=rf"this is the {backend} backend: start .* mpirun"):
        run(asks_for_native, 2, backend=backend)


def asks_for_native(group):
    group.all_reduce(np.ones(2), algorithm="native")


def test_the_barrier_of_checked_messages_comes_before_the_communicator_is_made():
    happened = []

    class Link:
        check = True

        def native(self):
            return agreed.Native(lambda: happened.append("made"), 0, np.add, self.check)

    call = agreed.agreed(lambda *_: happened.append("run"), lambda _: happened.append("barrier"))
    call(Link())
    Link.check = False
    call(Link())
    assert happened == ["barrier", "made", "run", "made", "run"]


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "float64", "complex128"])
def test_what_is_only_moved_is_moved_as_numbers_of_its_size(dtype):
    x = np.ones((2, 3), dtype)
    moved = native._movable(x)
    assert np.shares_memory(moved, x) and moved.shape == (6,)
    assert moved.itemsize == x.itemsize and moved.dtype.kind in "uc"


def test_more_than_mpi_can_count_is_refused():
    too_many = np.lib.stride_tricks.as_strided(np.zeros(1, "u1"), (native.MAX_ELEMENTS + 1,), (0,))
    with pytest.raises(UsageError, match=r"more than 2\^31-1 elements"):
        native._movable(too_many)


@pytest.mark.parametrize("root", range(3))
def test_pieces_stand_in_the_order_in_which_the_root_sees_the_ranks(root):
    class Comm:
        size = 3

    buf = np.zeros((6, 2))
    counts, starts = native._layout(Comm, root, buf, [0, 1, 3, 6])
    of_place = {0: (2, 0), 1: (4, 2), 2: (6, 6)}  # the root's own piece first
    for rank in range(3):
        assert (counts[rank], starts[rank]) == of_place[(rank - root) % 3]
