"""A one-way stream of bytes from one process to another, through memory that both have mapped.

        read                written             One writer, one reader. Each owns one counter and
          v                    v                only reads the other's, so no lock is needed:
    ....[#####################]........         the writer copies, then moves `written`;
    0         % capacity            capacity    the reader copies, then moves `read`.

Both counters only grow; position = counter % capacity. They live on cache lines of their own, so
that polling one does not slow the writes to the other down.

The copy must be visible before the counter is. x86-64 keeps stores in order, and CPython does one
8-byte store for an item of a "Q" memoryview. Other processors may reorder stores; there each
counter is written between two uses of a lock, whose release and acquire order them (not yet run on
such a machine).
"""

from __future__ import annotations

import platform
import threading

CHUNK_BYTES = (
    256 * 1024
)  # published at once: half of a small L2 cache, so the reader finds it there
COUNTER_BYTES = 64  # one cache line
ORDERED_STORES = platform.machine().lower() in ("x86_64", "amd64")


class ByteRing:
    """write_some and read_some move what fits now and never block, as on a non-blocking socket."""

    def __init__(self, memory: memoryview) -> None:
        """memory: the same bytes in both processes, zero at first: two counters, then the data."""
        self._counters = memory[: 2 * COUNTER_BYTES].cast("Q")  # [0] written, [8] read
        self._data = memory[2 * COUNTER_BYTES :]
        self._capacity = len(self._data)
        self._fence = threading.Lock()

    def write_some(self, source: memoryview) -> int:
        """Copy a first part of `source` in; how many bytes that was (0: the ring is full)."""
        written = self._counters[0]
        free = self._capacity - (written - self._counters[8])
        start = written % self._capacity
        n = min(len(source), free, self._capacity - start, CHUNK_BYTES)
        if n:
            self._data[start : start + n] = source[:n]
            self._publish(0, written + n)
        return n

    def read_some(self, target: memoryview) -> int:
        """Copy what has come into a first part of `target`; how many bytes (0: nothing there)."""
        read = self._counters[8]
        ready = self._counters[0] - read
        if not ready:
            return 0
        start = read % self._capacity
        n = min(len(target), ready, self._capacity - start, CHUNK_BYTES)
        target[:n] = self._data[start : start + n]
        self._publish(8, read + n)
        return n

    def clear(self) -> None:
        """Begin anew; neither side may use it meanwhile."""
        self._publish(0, 0)
        self._publish(8, 0)

    def readable(self) -> bool:
        """Whether bytes wait to be read."""
        return self._counters[0] != self._counters[8]

    def _publish(self, counter: int, value: int) -> None:
        if not ORDERED_STORES:
            for _ in range(2):
                with self._fence:
                    pass
        self._counters[counter] = value
