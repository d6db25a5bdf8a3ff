"""Sliding windows over channels-last images, as views: what convolution and pooling stand on.

    x [b, h, w, c]       windows(x) [b, y, x, k, l, c]         y, x: where the window stands
     . . . . .                                                 k, l: the place within it
     . # # # .           windows(x)[b, y, x, k, l]
     . # # # .             = x[b, y · stride + k · dilation, x · stride + l · dilation]
     . # # # .

No number is copied: only the strides say that neighbours overlap. Padding, however, is a copy, and
so is whatever computes with a window. `forth` and `back` therefore walk through a batch in parts
that fit the cache: some images at a time or, if one image is too large, some rows of it.

Letters: b images, h, w height and width, c channels, k, l height and width of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from minipar.array import Array, array_module, describe
from minipar.blocks import blocks, room
from minipar.errors import ShapeMismatch, UsageError

Pair = tuple[int, int]
At = tuple[slice, slice]  # images, rows

PART_BYTES = 1 << 21  # of what is computed with a part; smaller ones cost more calls than misses


class Window(NamedTuple):
    """How a kernel slides over an image; each a pair (down, across)."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    def out(self, h: int, w: int) -> Pair:
        """In how many places the window fits, down and across."""
        down, across = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip((h, w), self.kernel, self.stride, self.padding, self.dilation)
        ]
        return down, across


def window(op: str, x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> Window:
    """The Window for x; each argument is a number for both directions, or a pair."""
    if x.ndim != 4:
        raise ShapeMismatch(
            f"{op}: x is {describe(x)}; images are [batch, height, width, channels]."
        )
    made = Window(*(_pair(op, n) for n in (kernel, stride, padding, dilation)))
    if min(*made.kernel, *made.stride, *made.dilation) < 1 or min(made.padding) < 0:
        raise UsageError(f"{op}: kernel, stride and dilation start at 1, padding at 0: {made}.")
    if min(made.out(*x.shape[1:3])) < 1:
        raise ShapeMismatch(
            f"{op}: x is {describe(x)}, too small for a kernel of {made.kernel} with padding "
            f"{made.padding} and dilation {made.dilation}. Has an earlier layer shrunk it too far?"
        )
    return made


def windows(x: Array, win: Window) -> Array:
    """A view [b, y, x, k, l, c] of x [b, h, w, c], which is padded already."""
    (k, l), (down, across), _, (dil_y, dil_x) = win
    b, h, w, c = x.shape
    in_b, in_y, in_x, in_c = x.strides
    shape = (b, *win._replace(padding=(0, 0)).out(h, w), k, l, c)
    strides = (in_b, in_y * down, in_x * across, in_y * dil_y, in_x * dil_x, in_c)
    return array_module(x).lib.stride_tricks.as_strided(x, shape, strides)


def forth(x: Array, win: Window, row_bytes: int, fill: float = 0) -> Iterator[tuple[At, Array]]:
    """(images and rows, their windows [b, y, x, k, l, c]) part by part; padding holds `fill`.

    row_bytes: of what the caller computes with one row of windows; it decides the size of a part.
    The windows are valid until the next part is asked for.
    """
    rows, inside = win.out(*x.shape[1:3])[0], _inside(x, win)
    if not any(win.padding):
        view = windows(x, win)
        for images, some in _parts(x, rows, row_bytes):
            yield (images, some), view[images, some]
        return
    buffer, view, held = None, None, None
    for images, some in _parts(x, rows, row_bytes):
        if buffer is None:
            buffer = array_module(x).full(_padded_shape(x[images], win), fill, x.dtype)
            view = windows(buffer, win)
        n = images.stop - images.start
        if held != images:  # else only the rows are others
            buffer[:n, inside[0], inside[1]] = x[images]
            held = images
        yield (images, some), view[:n, some]


def back(dx: Array, win: Window, row_bytes: int) -> Iterator[tuple[At, Array]]:
    """The parts of `forth`, to be added to: what is added to the windows arrives in dx.

    Windows overlap, so add to one place (k, l) of them at a time: `view[:, :, :, k, l] += ...`.
    """
    rows, inside = win.out(*dx.shape[1:3])[0], _inside(dx, win)
    for images, some in _parts(dx, rows, row_bytes):
        if some.start == 0:
            sums = array_module(dx).zeros(_padded_shape(dx[images], win), dx.dtype)
            view = windows(sums, win)
        yield (images, some), view[:, some]
        if some.stop == rows:
            dx[images] = sums[:, inside[0], inside[1]]


def _parts(x: Array, rows: int, row_bytes: int) -> Iterator[At]:
    """Several whole images, or some rows of one."""
    part_bytes = room(x, PART_BYTES)
    for images in blocks(len(x), rows * row_bytes, part_bytes):
        together = images.stop - images.start
        for some in blocks(rows, together * row_bytes, part_bytes):
            yield images, some


def _padded_shape(x: Array, win: Window) -> tuple[int, ...]:
    b, h, w, c = x.shape
    return b, h + 2 * win.padding[0], w + 2 * win.padding[1], c


def _inside(x: Array, win: Window) -> At:
    """Where in the padded image the image lies."""
    (p, q), (h, w) = win.padding, x.shape[1:3]
    return slice(p, p + h), slice(q, q + w)


def _pair(op: str, n: Any) -> Pair:
    if isinstance(n, int):
        return n, n
    if not (isinstance(n, tuple) and len(n) == 2 and all(isinstance(m, int) for m in n)):
        raise UsageError(f"{op}: {n!r} must be a whole number, or a pair (down, across) of them.")
    return n
