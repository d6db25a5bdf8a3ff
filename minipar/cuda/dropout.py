"""Dropout whose mask is drawn where it is used, forward and backward alike (dropout.cu)."""

from __future__ import annotations

import numpy as np

from minipar.cuda.source import Array, Made, contiguous, launch

THREADS = 256


def dropout(x: Array, stream: tuple[int, int, int, int], threshold: int, p: float) -> Made:
    """z and the vjp of `ops.drawn_dropout`.   Keeps nothing: backward draws once more.

    stream: the two words of its key, the step, and the number of x's first element in it.
    threshold: an element is kept if its random uint32 is not below.
    """

    def masked(x: Array) -> Array:
        return _masked(x, stream, threshold, 1 / (1 - p))

    return masked(x), lambda dz, wanted: (masked(dz),)


def _masked(x: Array, stream: tuple[int, int, int, int], threshold: int, scale: float) -> Array:
    import cupy

    x, (key0, key1, step, start) = contiguous(x), stream
    z = cupy.empty(x.shape, x.dtype)
    draws = -(-(start + x.size) // 8) - start // 8
    key = [np.uint64(word) for word in (key0, key1)]
    kernel = ("dropout", "dropout", x.dtype, 1)
    arguments = (x, z, x.size, start, *key, step, threshold, scale)
    launch(kernel, (-(-draws // THREADS),), (THREADS,), *arguments)
    return z
