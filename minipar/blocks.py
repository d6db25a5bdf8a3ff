"""Cutting long arrays into pieces that stay in the cache.

NumPy runs an expression such as `a * b + c` as two passes over memory. When the arrays are cut
into blocks that fit the L2 cache and each step writes with `out=`, the passes run at cache speed
and no temporary is allocated. The fast ops and the optimizers use it; the definitions beside them
do not.

On a GPU it is the other way round: there is no such cache, and each block costs the launches of its
steps, some microseconds each. `room(x)` says how large blocks may be where x lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

BLOCK_BYTES = 1 << 17  # about eight such arrays fit a 1 MB L2 cache
DEVICE_BLOCK_BYTES = 1 << 28


def blocks(count: int, bytes_each: int, block_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Slices that cover 0..count in order; `bytes_each` is the size of one of the count items."""
    step = max(1, block_bytes // max(1, bytes_each))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def room(x: Any, block_bytes: int = BLOCK_BYTES) -> int:
    """How large blocks of arrays beside x should be: block_bytes in host memory, more on a GPU."""
    return block_bytes if isinstance(x, np.ndarray) else max(block_bytes, DEVICE_BLOCK_BYTES)
