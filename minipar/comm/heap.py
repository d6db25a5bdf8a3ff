"""Memory of a rank that the other ranks of its host can reach: where `group.empty` arrays live.

    heap file, sparse:   [region of rank 0 ........][region of rank 1 ........] ...
                          block   block     block    block

Each rank cuts blocks out of its own region, so nobody has to be asked, and says where an array lies
as bytes into that region. Whoever wants to read it maps that part of the file. A block goes back
when the last array in it has gone; its pages are returned to the system.

The file has no name, like the segment; it is as large as it may ever get, but only blocks take
memory, which is really allocated when they are cut.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from bisect import bisect_right, insort
from errno import EMFILE
from math import prod
from typing import Any

import numpy as np

from minipar.comm.shared_file import anonymous_file
from minipar.errors import SharedMemoryFull

REGION_BYTES = 1 << 36  # of addresses in the file, not of memory
PAGE = mmap.ALLOCATIONGRANULARITY
KEPT_MAPS = 64


def create_heap() -> int:
    """A descriptor of the file. It is empty, and grows with the blocks."""
    return anonymous_file()


class Heap:
    """One rank's region, and its view of the regions of the others."""

    def __init__(self, descriptor: int, place: int) -> None:
        """place: which region is this rank's: its number on this host."""
        self._descriptor, self._place, self._pid = descriptor, place, os.getpid()
        self._cutting = threading.Lock()
        self._blocks: list[tuple[int, int]] = []  # (start in the region, bytes), sorted
        self._addresses: list[tuple[int, int, int]] = []  # (address, bytes, start), sorted
        self._maps: dict[tuple[int, int, int], Any] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of that shape in a block of its own.  Raises: SharedMemoryFull."""
        with self._cutting:  # a rank's second thread may want one, too
            return self._cut(shape, dtype)

    def _cut(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        nbytes = prod(shape) * dtype.itemsize
        size = -(-max(nbytes, 1) // PAGE) * PAGE
        start = self._gap(size)
        offset = self._place * REGION_BYTES + start
        try:
            os.posix_fallocate(self._descriptor, offset, size)
            block = mmap.mmap(self._descriptor, size, offset=offset)
        except OSError as error:
            if error.errno == EMFILE:  # before Python 3.13, each map keeps one
                raise SharedMemoryFull(
                    "group.empty: each array takes a descriptor, and there are none left: "
                    "cut several out of one, or raise the limit (`ulimit -n`)."
                ) from None
            raise SharedMemoryFull(
                f"group.empty: {size / 2**20:.0f} MB of shared memory are not to be had: "
                f"{error.strerror}. Use fewer or smaller arrays, or np.empty."
            ) from None
        whole = np.frombuffer(block, np.uint8)
        address = whole.__array_interface__["data"][0]
        insort(self._blocks, (start, size))
        insort(self._addresses, (address, size, start))
        # Of `whole`, which all views hold: so it is forgotten before its address can be another's.
        gone = weakref.finalize(whole, self._free, block, start, address)
        gone.atexit = False  # others may still read what this rank has sent
        return whole[:nbytes].view(dtype).reshape(shape)

    def place_of(self, array: np.ndarray) -> int | None:
        """Where in the region the array's memory begins; None if it does not lie there."""
        if not self._addresses:
            return None
        address = array.__array_interface__["data"][0]
        addresses = self._addresses.copy()  # arrays may go at any moment, in another thread
        i = bisect_right(addresses, (address, REGION_BYTES, 0)) - 1
        if i < 0:
            return None
        base, size, start = addresses[i]
        inside = address + array.nbytes <= base + size
        return start + address - base if inside else None

    def view(self, place: int, start: int, nbytes: int, dtype: np.dtype) -> np.ndarray:
        """A flat array in the region of the rank at that place of the host."""
        if not nbytes:  # there is no map of nothing
            return np.empty(0, dtype)
        key = place, start, nbytes
        if key not in self._maps:
            if len(self._maps) >= KEPT_MAPS:
                del self._maps[next(iter(self._maps))]
            begin = start // PAGE * PAGE
            offset = place * REGION_BYTES + begin
            window = mmap.mmap(self._descriptor, start - begin + nbytes, offset=offset)
            self._maps[key] = np.frombuffer(window, np.uint8)[start - begin :]
        return self._maps[key].view(dtype)

    def _gap(self, size: int) -> int:
        """The first place in the region where so many bytes are free."""
        start = 0
        for begin, length in self._blocks.copy():  # one may go while we look
            if begin - start >= size:
                break
            start = begin + length
        if start + size > REGION_BYTES:
            raise SharedMemoryFull("group.empty: more than a rank's 64 GB of shared memory")
        return start

    def _free(self, block: mmap.mmap, start: int, address: int) -> None:
        """Give a block back, which may be cut again only when its pages have gone."""
        if os.getpid() != self._pid:  # in a fork, where the arrays are still those of the rank
            return
        self._addresses.remove((address, len(block), start))
        if hasattr(mmap, "MADV_REMOVE"):  # Linux: gives the pages back; elsewhere they are reused
            block.madvise(mmap.MADV_REMOVE)
        self._blocks.remove((start, len(block)))
