"""The shared memory of one host out of several.

    [segment of the ranks of this host: notices, rings] [a notice for every rank of the job]

Ranks of one host have rings between them, as ever. The notices behind the segment are those that
count: the launcher copies there what other hosts' launchers say their ranks are doing.
"""

from __future__ import annotations

import mmap

from minipar.comm.board import NOTICE_BYTES, Board
from minipar.comm.byte_ring import ByteRing
from minipar.comm.heap import create_heap
from minipar.comm.segment import Segment, create_segment, segment_bytes


class HostMemory:
    """The segment of the ranks of one host, and after it a notice for every rank of the job."""

    def __init__(self, descriptor: int, shared: range, ranks: int) -> None:
        self.segment, self._shared = Segment(descriptor, len(shared)), shared
        start, size = segment_bytes(len(shared)), ranks * NOTICE_BYTES
        self._notices = memoryview(mmap.mmap(descriptor, start + size))[start:]
        everybody = len(shared) == ranks
        self.board = self.segment.board() if everybody else Board(self._notices)

    def streams(self, rank: int) -> dict[int, tuple[ByteRing, ByteRing]]:
        """To and from every other rank that shares this memory."""
        first = self._shared.start
        return {
            r: (
                self.segment.ring(rank - first, r - first),
                self.segment.ring(r - first, rank - first),
            )
            for r in self._shared
            if r != rank
        }

    def notice(self, rank: int) -> bytes:
        """What stands on the board about that rank."""
        return bytes(self._notices[rank * NOTICE_BYTES : (rank + 1) * NOTICE_BYTES])

    def copy_notice(self, rank: int, notice: bytes) -> None:
        """What another host's launcher has read there."""
        if len(notice) == NOTICE_BYTES:
            self._notices[rank * NOTICE_BYTES : (rank + 1) * NOTICE_BYTES] = notice


def create_host_memory(shared: int, ranks: int) -> tuple[int, int]:
    """The descriptors of a HostMemory, and of the ranks' heap.  Raises: SharedMemoryFull."""
    return create_segment(shared, more=ranks * NOTICE_BYTES), create_heap()
