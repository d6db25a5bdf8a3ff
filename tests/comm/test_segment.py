"""The shared segment: its places do not overlap, and a lack of memory is a sentence."""

import mmap
import os
import resource
import subprocess
import sys

import pytest

from minipar.comm.frame import Call
from minipar.comm.segment import (
    CELL_BYTES,
    Segment,
    create_segment,
    ring_bytes,
    segment_bytes,
    slot_bytes,
)
from minipar.comm.transport import BUFFERED_BYTES


@pytest.mark.parametrize("p", [1, 2, 3, 9])
def test_everything_has_a_place_of_its_own(p):
    """Filled through one mapping, each with something else, and read through another one."""
    descriptor = create_segment(p)
    mine, other = Segment(descriptor, p), Segment(descriptor, p)
    os.close(descriptor)
    pairs = [(a, b) for a in range(p) for b in range(p) if a != b]
    for r in range(p):
        mine.board().write(r, Call(0, r, "barrier", "", "here:1"))
        mine.stage(r)[:] = bytes([100 + r]) * len(mine.stage(r))
    cells = mine.cells()
    cells[:] = bytes(range(len(cells) % 251)) + bytes(len(cells) - len(cells) % 251)
    for a, b in pairs:
        assert mine.ring(a, b).write_some(memoryview(bytes([a, b] * 1000))) == 2000
    for a, b in pairs:
        got = bytearray(3000)
        assert other.ring(a, b).read_some(memoryview(got)) == 2000
        assert got[:2000] == bytes([a, b] * 1000)
    for r in range(p):
        assert other.board().read(r) == f"barrier #{r} at here:1"
        assert set(other.stage(r)) == {100 + r} and len(other.stage(r)) == 2 * slot_bytes(p)
    assert other.cells() == cells and len(cells) == p * p * CELL_BYTES


def test_it_is_as_large_as_it_says_and_nameless():
    descriptor = create_segment(4)
    assert os.fstat(descriptor).st_size == segment_bytes(4)
    assert os.fstat(descriptor).st_nlink == 0
    assert os.fstat(descriptor).st_blocks * 512 >= segment_bytes(4)  # allocated, not only promised
    os.close(descriptor)


@pytest.mark.parametrize("p", [2, 8, 9, 64])
def test_a_ring_holds_a_buffered_send(p):
    assert ring_bytes(p) > BUFFERED_BYTES + 1024
    assert ring_bytes(p) % mmap.ALLOCATIONGRANULARITY % 64 == 0


def test_no_space_is_one_sentence_that_says_what_to_do():
    code = """
import resource, minipar
from tests.comm import ranks
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
minipar.run(ranks.late, 4, args=(0,), backend="process")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "SharedMemoryFull: 4 ranks need 20 MB of shared memory" in done.stderr
    assert "Start fewer ranks" in done.stderr.splitlines()[-1]
    assert resource.getrlimit(resource.RLIMIT_FSIZE) != (1 << 20, 1 << 20)
