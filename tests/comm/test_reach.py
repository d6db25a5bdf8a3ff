"""Arrays in the private memory of other processes: the same results, and errors in time."""

import ctypes
import mmap
import os

import numpy as np
import pytest

import minipar
from minipar.comm.reach import Doorplate, Mapped, Private, address_of, can_read, is_ordinary
from minipar.errors import PeerLost
from tests.comm import reached

PLATE = Doorplate()
pytestmark = pytest.mark.skipif(not can_read(PLATE.words), reason="no process_vm_readv here")


def run(*arguments, ranks=2):
    return minipar.run(*arguments[:1], ranks, args=arguments[1:], backend="process", timeout_s=60)


@pytest.mark.parametrize("p", [2, 3, 4])
def test_collectives_give_the_same_as_numpy(p):
    found = run(reached.collectives, None, ranks=p)
    assert len(set(found)) == 1
    if not found[0]:
        pytest.skip("the ranks may not reach each other here")


@pytest.mark.parametrize("locked", [0, 2])
def test_if_one_rank_cannot_be_reached_all_take_the_stage(locked):
    assert run(reached.collectives, locked, ranks=3) == [False] * 3


@pytest.mark.parametrize("p", [2, 3])
def test_odd_arrays(p):
    assert len(set(run(reached.odd_arrays, ranks=p))) == 1


@pytest.mark.parametrize("what", ["broadcast", "send"])
def test_a_rank_that_is_killed_while_it_is_read(what, capfd):
    for _ in range(9):  # a sender that helps may have copied all before rank 0 begins
        try:
            found = run(reached.killed_while_it_is_read, what)
        except PeerLost as error:
            assert "rank 1 was killed by signal 9" in str(error)
            break
        if "not here" in found:
            pytest.skip("the ranks may not reach each other here")
    else:
        pytest.fail("rank 0 never began to copy")
    said = capfd.readouterr().out
    assert "CommError" not in said  # rank 0 has waited for the launcher's reason: PeerLost
    assert "gone" not in said


def test_memory_that_has_gone_is_a_sentence():
    found = run(reached.refused)[0]
    if found == "not here":
        pytest.skip("the ranks may not reach each other here")
    assert found == (
        "rank 0, broadcast #0 at here:1: the memory of rank 1 cannot be reached any more: "
        "Bad address"
    )


def test_a_stranger_under_that_number_is_not_taken_for_the_rank():
    pid, address, number = PLATE.words
    assert can_read((pid, address, number))
    assert not can_read((pid, address, number ^ 1))
    assert not can_read((pid, 8, number))
    assert not can_read((0, address, number))
    assert not can_read((2**22 + 1, address, number))  # above the largest pid of Linux


def test_memory_that_the_kernel_does_not_copy_is_not_ordinary():
    """As that of a device: here, memory that nobody may touch."""
    pages = mmap.mmap(-1, 3 * mmap.PAGESIZE)
    array = np.frombuffer(pages, np.uint8)
    assert is_ordinary(array)
    libc = ctypes.CDLL(None, use_errno=True)
    last = ctypes.c_void_p(address_of(array) + 2 * mmap.PAGESIZE)
    assert not libc.mprotect(last, mmap.PAGESIZE, 0)
    assert not is_ordinary(array)
    assert is_ordinary(array[: 2 * mmap.PAGESIZE])


def test_windows_read_fetch_and_write():
    array, moves = np.arange(3_000_000, dtype=np.int64), []  # 24 MB: several pieces
    for window in (
        Mapped(array, lambda: moves.append(1)),
        Private(os.getpid(), address_of(array), array.dtype, lambda: moves.append(1), None),
    ):
        assert window.read(5, 9).tolist() == [5, 6, 7, 8]
        assert window.read(2, 4).tolist() == [2, 3]
        into = np.zeros(2_000_000, np.int64)
        moves.clear()
        window.fetch(1_000_000, into)
        assert len(moves) == 4 and (into == array[1_000_000:]).all()
        window.write(7, into[:3])
        assert array[6:11].tolist() == [6, 1_000_000, 1_000_001, 1_000_002, 10]
        window.write(7, np.array([7, 8, 9]))
