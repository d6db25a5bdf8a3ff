"""The one segment of shared memory of a job on one host, and what lies where in it.

    [notices of all ranks: `board`][cells of all pairs, stages of all ranks: `exchange`]
    [ring 0->1][ring 0->2] ... [ring p-1 -> p-2: `byte_ring`]

The segment has no name: it is a descriptor (memfd, or a file that is unlinked at once) that the
ranks inherit, so nothing can be left behind, whoever is killed. Its pages are allocated before
anybody starts, so that a lack of memory is a sentence now and not a bus error later.
"""

from __future__ import annotations

import mmap
import os

from minipar.comm.board import NOTICE_BYTES, Board
from minipar.comm.byte_ring import COUNTER_BYTES, ByteRing
from minipar.comm.shared_file import anonymous_file
from minipar.errors import SharedMemoryFull

MANY_RANKS = 8  # above this, rings and stages shrink; there are p(p-1) rings
SLOTS = 2  # of a stage: one is filled while the others still read the other one
CELL_BYTES = 128  # of an ordered pair of ranks: a cache line for circles, one for loans


class Segment:
    """The mapped segment, and where in it everything is."""

    def __init__(self, descriptor: int, ranks: int) -> None:
        self._map = mmap.mmap(descriptor, segment_bytes(ranks))
        self._memory, self._ranks = memoryview(self._map), ranks

    def board(self) -> Board:
        return Board(self._memory[: self._ranks * NOTICE_BYTES])

    def cells(self) -> memoryview:
        """The cells of all ordered pairs of ranks."""
        start = self._ranks * NOTICE_BYTES
        return self._memory[start : start + self._ranks**2 * CELL_BYTES]

    def stage(self, rank: int) -> memoryview:
        """The memory in which that rank shows arrays: SLOTS slots."""
        size = SLOTS * slot_bytes(self._ranks)
        start = _stages(self._ranks) + rank * size
        return self._memory[start : start + size]

    def ring(self, src: int, dst: int) -> ByteRing:
        """The ring from rank src to another rank dst."""
        size = ring_bytes(self._ranks)
        place = src * (self._ranks - 1) + dst - (dst > src)
        start = _rings(self._ranks) + place * size
        return ByteRing(self._memory[start : start + size])


def ring_bytes(ranks: int) -> int:
    """Bytes of one ring: 1 MB, or 320 KB with many ranks; both hold a buffered send (256 KB)."""
    return 2 * COUNTER_BYTES + (1024 if ranks <= MANY_RANKS else 320) * 1024


def slot_bytes(ranks: int) -> int:
    """Bytes that a rank can show at once: 1 MB, or 256 KB with many ranks."""
    return (1024 if ranks <= MANY_RANKS else 256) * 1024


def _stages(ranks: int) -> int:
    before = ranks * NOTICE_BYTES + ranks**2 * CELL_BYTES
    return -(-before // 4096) * 4096  # on pages of their own


def _rings(ranks: int) -> int:
    return _stages(ranks) + ranks * SLOTS * slot_bytes(ranks)


def segment_bytes(ranks: int) -> int:
    """Bytes of shared memory that a job of so many ranks takes: about 6 MB for 2, 20 MB for 4."""
    return _rings(ranks) + ranks * (ranks - 1) * ring_bytes(ranks)


def create_segment(ranks: int, more: int = 0) -> int:
    """A descriptor of zeroed, really allocated memory, with `more` bytes behind it.

    Raises: SharedMemoryFull.
    """
    size = segment_bytes(ranks) + more
    descriptor = -1
    try:
        descriptor = anonymous_file()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:  # macOS
            with open(descriptor, "wb", closefd=False) as file:
                file.write(bytes(size))
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise SharedMemoryFull(
            f"{ranks} ranks need {size / 2**20:.0f} MB of shared memory, and the system refused: "
            f"{error.strerror}. Start fewer ranks, or raise the limit: `ulimit -f`, the memory of "
            "the container, or (without memfd) the space in the temporary folder."
        ) from None
    return descriptor
