"""The one segment of shared memory of a job: a notice per rank, and a ring per ordered pair.

    [notice 0][notice 1]...[notice p-1]  [ring 0->1][ring 0->2]...[ring p-1 -> p-2]

    notice:  [number of waits begun and ended][whom it waits for][text of its current call]

The segment has no name: it is a descriptor (memfd, or a file that is unlinked at once) that the
ranks inherit, so nothing can be left behind, whoever is killed. Its pages are allocated before
anybody starts, so that a lack of memory is a sentence now and not a bus error later.

Others read the text of a notice only to explain why they wait, so a torn read does no harm.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile

from minipar.comm.byte_ring import COUNTER_BYTES, ByteRing
from minipar.comm.frame import Call
from minipar.errors import SharedMemoryFull

NOTICE_BYTES = 256
TEXT_BYTES = NOTICE_BYTES - 16
MANY_RANKS = 8  # above this the rings shrink, since there are p(p-1) of them


class Board:
    """What each rank is doing, readable by all."""

    def __init__(self, memory: memoryview) -> None:
        self._memory, self._numbers = memory, memory.cast("q")

    def write(self, rank: int, call: Call) -> None:
        """Say what this rank is doing."""
        text, start = str(call).encode()[-TEXT_BYTES:], (rank + 1) * NOTICE_BYTES - TEXT_BYTES
        self._memory[start : start + TEXT_BYTES] = text.ljust(TEXT_BYTES, b"\0")

    def begin_wait(self, rank: int, whom: int) -> None:
        """Say that this rank waits, and for whom."""
        place = rank * NOTICE_BYTES // 8
        self._numbers[place + 1] = whom
        self._numbers[place] += 1

    def end_wait(self, rank: int) -> None:
        self._numbers[rank * NOTICE_BYTES // 8] += 1

    def waits(self, rank: int) -> int:
        """How many waits of that rank have begun or ended: odd while it waits."""
        return self._numbers[rank * NOTICE_BYTES // 8]

    def waits_for(self, rank: int) -> int:
        """The rank that it waits for, or did when it last waited."""
        return self._numbers[rank * NOTICE_BYTES // 8 + 1]

    def read(self, rank: int) -> str:
        """The last call of that rank, or "none yet"."""
        end = (rank + 1) * NOTICE_BYTES
        raw = bytes(self._memory[end - TEXT_BYTES : end])
        return raw.rstrip(b"\0").decode(errors="replace") or "none yet"


class Segment:
    """The mapped segment, and where in it the rings are."""

    def __init__(self, descriptor: int, ranks: int) -> None:
        self._map = mmap.mmap(descriptor, segment_bytes(ranks))
        self._memory, self._ranks = memoryview(self._map), ranks

    def board(self) -> Board:
        return Board(self._memory[: self._ranks * NOTICE_BYTES])

    def ring(self, src: int, dst: int) -> ByteRing:
        """The ring from rank src to another rank dst."""
        size = ring_bytes(self._ranks)
        place = src * (self._ranks - 1) + dst - (dst > src)
        start = self._ranks * NOTICE_BYTES + place * size
        return ByteRing(self._memory[start : start + size])


def ring_bytes(ranks: int) -> int:
    """Bytes of one ring: 1 MB, or 320 KB with many ranks; both hold a buffered send (256 KB)."""
    return 2 * COUNTER_BYTES + (1024 if ranks <= MANY_RANKS else 320) * 1024


def segment_bytes(ranks: int) -> int:
    """Bytes of shared memory that a job of so many ranks takes: about 2 MB for 2, 12 MB for 4."""
    return ranks * NOTICE_BYTES + ranks * (ranks - 1) * ring_bytes(ranks)


def create_segment(ranks: int) -> int:
    """A descriptor of zeroed, really allocated memory.  Raises: SharedMemoryFull."""
    size = segment_bytes(ranks)
    descriptor = -1
    try:
        descriptor = _anonymous_file()
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


def _anonymous_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("minipar")
    descriptor, path = tempfile.mkstemp(prefix="minipar")
    os.unlink(path)
    return descriptor
