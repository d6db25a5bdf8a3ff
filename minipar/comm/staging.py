"""Arrays of a GPU on their way through host memory, where ranks share nothing else.

    sender     GPU -> a pinned block of the heap     the message says where that lies (`loans`)
    receiver   a pinned block -> GPU

To pinned memory the GPU copies by itself; from any other the driver copies once more. Pinning takes
longer than copying, so a block is pinned once, and used again as soon as the last array in it has
gone. Its size is a power of two, so few different ones are needed.

Both copies go through the stream that is current where they are asked for, and wait for it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import defaultdict
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from minipar.array import Array

SMALLEST_BYTES = 1 << 16


class Staging:
    """Pinned blocks of host memory, and the copies through them."""

    def __init__(self, empty: Callable[[tuple[int, ...], Any], np.ndarray] = np.empty) -> None:
        """empty: as numpy.empty, in memory that the other ranks reach best."""
        self._empty = empty
        self._free: dict[int, list[np.ndarray]] = defaultdict(list)

    def room(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array in a pinned block.  Raises: SharedMemoryFull, MemoryError."""
        dtype = np.dtype(dtype)
        nbytes = prod(shape) * dtype.itemsize
        size = max(SMALLEST_BYTES, 1 << max(0, nbytes - 1).bit_length())
        free = self._free[size]
        try:
            block = free.pop()
        except IndexError:
            block = self._empty((size,), np.dtype(np.uint8))
            pin(block)
        whole = np.frombuffer(block.data, np.uint8)  # which all views of it hold
        weakref.finalize(whole, free.append, block).atexit = False
        return whole[:nbytes].view(dtype).reshape(shape)

    def down(self, array: Array) -> np.ndarray:
        """A copy of an array of the GPU in pinned memory, once all before it is done there."""
        host = self.room(array.shape, array.dtype)
        if array.size:
            flat = array.reshape(-1)  # a copy if it is strided
            flat.get(out=host.reshape(-1))
        return host

    def up(self, host: np.ndarray) -> Array:
        """A copy on the GPU, complete."""
        import cupy

        array = cupy.empty(host.shape, host.dtype)
        if array.size:
            array.set(host)
            cupy.cuda.get_current_stream().synchronize()
        return array


def pin(block: np.ndarray) -> None:
    """Register the block with CUDA, if that lets us: else copies take the driver's detour."""
    import cupy

    address = block.__array_interface__["data"][0]
    with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):
        cupy.cuda.runtime.hostRegister(address, block.nbytes, 0)
