"""Pooling: a window of the image becomes one pixel, each channel for itself.

Written as k·l steps over whole images, one for each place in the window (windows.py); a window laid
out for `max(axis=...)` would be many short rows, over which NumPy is slow. The mean over the whole
image is `x.mean(axis=(1, 2))`.

Letters: b images, h, w height and width, c channels, y, x places of a window, k, l places in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from minipar.array import Array, array_module
from minipar.errors import UsageError
from minipar.tensor import Tensor, record
from minipar.windows import Window, back, forth, window


def max_pool2d(x: Tensor, kernel: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """z = the largest of each window; among equals, the first.   [b, h, w, c] -> [b, y, x, c].

    kernel, stride (that of the kernel if None), padding: a number, or a pair (down, across).
    Keeps one byte for each element of z until backward: where in the window it stood.
    Raises: ShapeMismatch, UsageError.
    """
    win = _window("max_pool2d", x, kernel, stride, padding)
    xp, places = array_module(x.data), list(_places(win))
    z = xp.empty((len(x), *win.out(*x.shape[1:3]), x.shape[3]), x.dtype)
    row_bytes = _row_bytes(z)
    where = xp.zeros(z.shape, "uint8" if len(places) <= 256 else "int32")
    for at, view in forth(x.data, win, row_bytes, -xp.inf):
        best, won = z[at], where[at]
        best[...] = view[:, :, :, 0, 0]
        for n, (k, l) in enumerate(places[1:], 1):
            seen = view[:, :, :, k, l]
            won[...] = xp.where(seen > best, n, won)
            xp.maximum(best, seen, out=best)
    shape = x.shape

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = xp.empty(shape, dz.dtype)
        for at, view in back(dx, win, row_bytes):
            for n, (k, l) in enumerate(places):
                view[:, :, :, k, l] += dz[at] * (where[at] == n)
        return (dx,)

    return record(z, (x,), vjp)


def avg_pool2d(x: Tensor, kernel: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """z = the mean of each window, zeros of the padding included.   Arguments as for max_pool2d.

    Keeps nothing until backward.
    """
    win = _window("avg_pool2d", x, kernel, stride, padding)
    xp, share = array_module(x.data), 1 / (win.kernel[0] * win.kernel[1])
    z = xp.zeros((len(x), *win.out(*x.shape[1:3]), x.shape[3]), x.dtype)
    for at, view in forth(x.data, win, _row_bytes(z)):
        for k, l in _places(win):
            z[at] += view[:, :, :, k, l]
        z[at] *= share
    shape = x.shape

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = xp.empty(shape, dz.dtype)
        for at, view in back(dx, win, _row_bytes(dz)):
            each = dz[at] * share
            for k, l in _places(win):
                view[:, :, :, k, l] += each
        return (dx,)

    return record(z, (x,), vjp)


def _places(win: Window) -> Iterator[tuple[int, int]]:
    for k in range(win.kernel[0]):
        for l in range(win.kernel[1]):
            yield k, l


def _window(op: str, x: Tensor, kernel: Any, stride: Any, padding: Any) -> Window:
    win = window(op, x.data, kernel, kernel if stride is None else stride, padding)
    if any(2 * p > k for p, k in zip(win.padding, win.kernel)):
        raise UsageError(
            f"{op}: a padding of {win.padding} is more than half of the kernel {win.kernel}, so "
            "some windows would see nothing but padding."
        )
    return win


def _row_bytes(z: Array) -> int:
    """Four such arrays are in use at a time."""
    return 4 * z[0, 0].size * z.dtype.itemsize if len(z) else 1
