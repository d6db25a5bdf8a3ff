"""Blocks that others reach: no two overlap, all are found again, what has gone is given back."""

import gc
import mmap
import os
import random
import resource
import sys
import threading

import numpy as np
import pytest

from minipar.comm.heap import PAGE, Heap
from minipar.comm.shared_file import anonymous_file
from minipar.errors import SharedMemoryFull


@pytest.fixture
def heaps():
    """The heaps of two ranks of one host."""
    descriptor = anonymous_file()
    yield Heap(descriptor, 0), Heap(os.dup(descriptor), 1), descriptor
    os.close(descriptor)


def memory_of(descriptor):
    return os.fstat(descriptor).st_blocks * 512


def test_the_other_rank_sees_and_writes_the_same_memory(heaps):
    mine, other, _ = heaps
    first, second = mine.empty((3, 5), np.dtype("float32")), mine.empty((7,), np.dtype("int64"))
    first[:], second[:] = 1, 2
    for array in (first, second, first[1:], second[3:]):
        start = mine.place_of(array)
        view = other.view(0, start, array.nbytes, array.dtype)
        assert (view == array.reshape(-1)).all()
        view[-1] = 9
        assert array.reshape(-1)[-1] == 9
    assert other.empty((4,), np.dtype("float64")).shape == (4,)  # in a region of its own
    assert (second[:3] == 2).all()


def test_private_memory_has_no_place(heaps):
    mine, other, _ = heaps
    assert mine.place_of(np.zeros(3)) is None  # before there is any block
    array = mine.empty((3,), np.dtype("float64"))
    assert mine.place_of(np.zeros(3)) is None
    assert other.place_of(array) is None


def test_blocks_never_overlap_and_go_back(heaps):
    """A random life of arrays: each keeps its own value, and at the end nothing is left."""
    mine, _, descriptor = heaps
    dice, arrays = random.Random(0), {}
    for step in range(300):
        if arrays and dice.random() < 0.45:
            step_of, array = arrays.popitem() if dice.random() < 0.5 else (min(arrays), None)
            array = arrays.pop(step_of) if array is None else array
            assert (array == step_of).all()
            del array
        else:
            array = mine.empty((dice.randrange(1, 3 * PAGE),), np.dtype("int32"))
            array[:] = step
            arrays[step] = array
            del array
    assert all((array == step).all() for step, array in arrays.items())
    assert memory_of(descriptor) >= sum(array.nbytes for array in arrays.values()) > 0
    arrays.clear()
    gc.collect()
    assert memory_of(descriptor) == 0
    array = mine.empty((1,), np.dtype("int8"))
    assert mine.place_of(array) == 0  # the region begins anew


def test_a_view_keeps_its_block_alive(heaps):
    mine, _, _ = heaps
    view = mine.empty((100,), np.dtype("int64"))[10:20]
    view[:] = 3
    other = mine.empty((100,), np.dtype("int64"))
    other[:] = 4
    assert (view == 3).all()


def test_memory_that_is_not_to_be_had_is_a_sentence(heaps):
    mine, _, _ = heaps
    with pytest.raises(SharedMemoryFull, match=r"group\.empty: .* 64 GB"):
        mine.empty((1 << 40,), np.dtype("int8"))


def test_too_many_arrays_for_the_descriptors_is_a_sentence(heaps):
    mine, _, _ = heaps
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    arrays = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
        for _ in range(200):  # from Python 3.13 on, a map takes none
            arrays.append(mine.empty((1,), np.dtype("int8")))
    except SharedMemoryFull as error:
        assert "each array takes a descriptor" in str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_view_of_nothing_is_nothing(heaps):
    """mmap takes a length of 0 for the whole file: peers saw more elements than there are."""
    mine, other, _ = heaps
    whole = mine.empty((PAGE,), np.dtype("uint8"))
    for empty in (whole[:0], whole[PAGE:], mine.empty((0, 3), np.dtype("uint8"))):
        place = mine.place_of(empty)
        assert place is None or other.view(0, place, 0, empty.dtype).shape == (0,)


def test_what_a_forked_process_lets_go_of_stays_the_ranks(heaps):
    """The child of a fork once punched the holes of the arrays that it dropped: zeros here."""
    mine, _, _ = heaps
    arrays = [mine.empty((10,), np.dtype("int64"))]
    arrays[0][:] = 5
    child = os.fork()
    if not child:
        arrays.clear()
        os._exit(0)
    os.waitpid(child, 0)
    assert (arrays[0] == 5).all()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_block_is_forgotten_while_its_addresses_are_still_its_own(monkeypatch):
    """An array of private memory that got the same address meanwhile was once taken for one of the
    heap; and a block could be cut again before its pages were taken away, with what was in them.
    """
    seen = []

    class Block(mmap.mmap):
        def madvise(self, option):
            with open("/proc/self/maps") as lines:
                ranges = [line.split()[0].split("-") for line in lines if "minipar" in line]
            seen.append(any(int(low, 16) <= address < int(high, 16) for low, high in ranges))
            seen.append(heap._addresses == [] and heap._blocks == [(0, PAGE)])
            return super().madvise(option)

    monkeypatch.setattr(mmap, "mmap", Block)
    heap = Heap(anonymous_file(), 0)
    array = heap.empty((PAGE,), np.dtype("uint8"))
    address = array.__array_interface__["data"][0]
    del array
    os.close(heap._descriptor)
    assert seen == [True, True] and not heap._blocks


def test_two_threads_never_cut_the_same_block(heaps):
    """A rank's second thread stages arrays of a GPU while the first one asks for memory."""
    mine, _, _ = heaps
    kept = []

    def cut(value):
        for _ in range(30):
            array = mine.empty((PAGE,), np.dtype("uint8"))
            array[:] = value
            kept.append((array, value))

    threads = [threading.Thread(target=cut, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((array == value).all() for array, value in kept)
