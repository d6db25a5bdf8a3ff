"""Convolution of channels-last images, as matrix products.

    columns: each window, laid out flat, is a row          weights: each output channel, a column

      image y x ──►  [ k · l · i numbers ]                 [ k · l · i , o ]
                     [       ...         ]   @   w    =    z  [ b · y · x , o ]

The columns hold every pixel k·l times, so they are never all there at once: a part of the images
(windows.py) is laid out in a buffer that fits the cache, multiplied, and overwritten by the next.
Nothing of it is kept until backward. There,

    dw  =  columnsᵀ @ dz, added up over the parts
    dx  is a convolution, too, if the stride is 1: of dz, with the kernel turned by 180°.

The columns of that second convolution give dw as well: x meets the same dz in them. With a larger
stride, columns dz @ wᵀ are made, and each number is added where it came from.

NumPy's products are at their best with hundreds of columns. With 16 or 32 output channels they run
at half that speed, and laying out the columns, which no library call overlaps with the product,
takes as long as a third of it. A GPU library, or PyTorch with its own kernels, has no such limits.

Letters: b images, h, w height and width, y, x places of a window, k, l places within it,
i, o channels in and out, g groups.
Left out on purpose: Winograd's and Fourier's ways to multiply less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from minipar.array import Array, array_module, on_host
from minipar.errors import ShapeMismatch
from minipar.ops import depthwise
from minipar.ops.shape import pad
from minipar.tensor import Tensor, record, shown
from minipar.windows import At, Window, back, forth, window

# Multiplications in a product that BLAS takes as it is. A larger one it first copies into the order
# that it likes (OpenBLAS does), which for few output channels takes a third of the time.
SMALL_PRODUCT = 1_000_000


def conv2d_definition(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """z[y, x] = Σ over k, l of x[y · stride + k · dilation, x · stride + l · dilation] @ w[k, l].

    One product for each place of the kernel. Shapes as for `conv2d`; keeps k·l copies of x.
    """
    win = _check(x, w, b, (stride, padding, dilation), groups)
    (down, across), (dil_y, dil_x) = win.stride, win.dilation
    (rows, cols), o = win.out(*x.shape[1:3]), w.shape[3]
    x = pad(x, [(0, 0), *((p, p) for p in win.padding), (0, 0)])
    x = x.reshape(*x.shape[:3], groups, 1, -1)
    z: Any = 0.0 if b is None else b
    for k in range(w.shape[0]):
        for l in range(w.shape[1]):
            top, left = k * dil_y, l * dil_x
            seen = x[:, top : top + rows * down : down, left : left + cols * across : across]
            by_group = w[k, l].reshape(-1, groups, o // groups).transpose(1, 0, 2)
            z = z + (seen[:, :rows, :cols] @ by_group).reshape(-1, rows, cols, o)
    return z


def conv2d(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d_definition`, one product for each part of the batch that fits the cache.

    x: [b, h, w, i]   w: [k, l, i/g, o]   b: [o]   z: [b, y, x, o].
    stride, padding (with zeros), dilation: a number, or a pair (down, across).
    groups: channel n·i/g + ... of x is seen by channels n·o/g + ... of z only. With as many groups
    as channels (depthwise) there is nothing to multiply by a matrix: see depthwise.py.
    Keeps x and w until backward.
    Cost:   2 · b·y·x · k·l · i/g · o operations forward, twice that backward.
    Raises: ShapeMismatch, UsageError.
    Paper:  LeCun et al. 1989; columns as in Chellapilla et al. 2006.
    """
    win = _check(x, w, b, (stride, padding, dilation), groups)
    if groups == x.shape[3] > 1:
        forward, gradients = depthwise.forward, depthwise.gradients
    else:
        forward, gradients = _forward, _gradients
    z = forward(x.data, w.data, win)
    if b is not None:
        z += b.data

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx, dw = gradients(x.data, w.data, dz, win, wanted)
        if b is None:
            return dx, dw
        return dx, dw, dz.sum(axis=(0, 1, 2)) if wanted[2] else None

    return record(z, (x, w) if b is None else (x, w, b), vjp)


def _forward(x: Array, w: Array, win: Window) -> Array:
    xp, (i, o) = array_module(x), w.shape[2:]
    g = x.shape[3] // i
    z = xp.empty((len(x), *win.out(*x.shape[1:3]), o), xp.result_type(x, w))
    weights = _by_group(w, g)
    for at, columns in _columns(x, win, g):
        out = z[at].reshape(-1, g, o // g)
        for n in range(g):
            _product(columns[n], weights[n], out[:, n])
    return z


def _columns(x: Array, win: Window, g: int) -> Iterator[tuple[At, Array]]:
    """(images and rows, their columns [g, windows, k·l·i/g]), the columns in one buffer for all."""
    xp, (k, l), i = array_module(x), win.kernel, x.shape[3] // g
    if win == ((1, 1), (1, 1), (0, 0), win.dilation) and g == 1:  # x is its own columns
        yield (slice(None), slice(None)), x.reshape(1, -1, i)
        return
    across = win.out(*x.shape[1:3])[1]
    buffer = xp.empty(0, x.dtype)
    for at, view in forth(x, win, across * k * l * g * i * x.dtype.itemsize):
        if buffer.size < view.size:
            buffer = xp.empty(view.size, x.dtype)
        by_group = view.reshape(*view.shape[:5], g, i).transpose(5, 0, 1, 2, 3, 4, 6)
        columns = buffer[: view.size].reshape(by_group.shape)
        columns[...] = by_group
        yield at, columns.reshape(g, -1, k * l * i)


def _gradients(
    x: Array, w: Array, dz: Array, win: Window, wanted: Sequence[bool]
) -> tuple[Array | None, Array | None]:
    """dx and dw, those wanted."""
    (k, l), (p, q), (dil_y, dil_x) = win.kernel, win.padding, win.dilation
    turned = (dil_y * (k - 1) - p, dil_x * (l - 1) - q)  # the padding that gives dx the size of x
    narrow = w.shape[3] <= 4 * x.shape[3]  # else the columns of x are the smaller ones
    if win.stride == (1, 1) and min(turned) >= 0 and narrow:
        return _gradients_at_once(x, w, dz, win._replace(padding=turned), wanted)
    dx = _scattered(dz, w, win, x) if wanted[0] else None
    return dx, _weight_gradient(x, w, dz, win) if wanted[1] else None


def _gradients_at_once(
    x: Array, w: Array, dz: Array, win: Window, wanted: Sequence[bool]
) -> tuple[Array | None, Array | None]:
    """dx and dw from the columns of dz, for stride 1; `win` slides over dz.

    dx[y] = Σ over k of dz[y - k + ...] @ w[k]ᵀ,  and the same pairs of x and dz make dw[k].
    """
    xp, (k, l, i, o) = array_module(x), w.shape
    g = x.shape[3] // i
    weights = _by_group(_turned(w, g), g)
    dx = xp.empty(x.shape, dz.dtype) if wanted[0] else None
    dw = xp.zeros(weights.shape, dz.dtype) if wanted[1] else None
    for at, columns in _columns(dz, win, g):
        for n in range(g):
            if dx is not None:
                _product(columns[n], weights[n], dx[at].reshape(-1, g, i)[:, n])
            if dw is not None:
                dw[n] += _product_of_rows(columns[n], x[at].reshape(-1, g, i)[:, n])
    if dw is not None:
        dw = _turned(_in_one(dw, (k, l, o // g, g * i)), g)
    return dx, dw


def _weight_gradient(x: Array, w: Array, dz: Array, win: Window) -> Array:
    """dw = columnsᵀ @ dz."""
    xp, (k, l, i, o) = array_module(x), w.shape
    g = x.shape[3] // i
    dw = xp.zeros((g, k * l * i, o // g), dz.dtype)
    for at, columns in _columns(x, win, g):
        rows = dz[at].reshape(-1, g, o // g)
        for n in range(g):
            dw[n] += _product_of_rows(columns[n], rows[:, n])
    return _in_one(dw, w.shape)


def _scattered(dz: Array, w: Array, win: Window, x: Array) -> Array:
    """dx for any stride: the columns dz @ wᵀ, each number added where it came from."""
    xp, (k, l, i, o) = array_module(x), w.shape
    g = x.shape[3] // i
    weights = _by_group(w, g)
    dx = xp.empty(x.shape, dz.dtype)
    for at, view in back(dx, win, dz.shape[2] * k * l * g * i * x.dtype.itemsize):
        rows = dz[at].reshape(-1, g, o // g)
        for n in range(g):
            columns = (rows[:, n] @ weights[n].T).reshape(*view.shape[:5], i)
            for at_k in range(k):
                for at_l in range(l):
                    view[:, :, :, at_k, at_l, n * i : n * i + i] += columns[:, :, :, at_k, at_l]
    return dx


def _product(a: Array, b: Array, out: Array) -> None:
    """out = a @ b, some rows of a at a time.   a: [n, k]   b: [k, o]."""
    together = _rows_together(a, b)
    if together >= 16:
        a, out = a.reshape(-1, together, a.shape[1]), out.reshape(-1, together, out.shape[1])
    array_module(a).matmul(a, b, out=out)


def _product_of_rows(a: Array, b: Array) -> Array:
    """aᵀ @ b, some rows at a time, added up.   a: [n, k]   b: [n, o]."""
    together = _rows_together(a, b)
    if together < 64:
        return a.T @ b
    a, b = (m.reshape(-1, together, m.shape[1]) for m in (a, b))
    return (a.transpose(0, 2, 1) @ b).sum(axis=0)


def _rows_together(a: Array, b: Array) -> int:
    """How many rows make a small product: a power of two that divides their number, 0 for all."""
    most = SMALL_PRODUCT // (a.shape[1] * b.shape[1])
    if not on_host(a) or not most:
        return 0
    return math.gcd(len(a), 1 << (most.bit_length() - 1))


def _by_group(w: Array, g: int) -> Array:
    """[k, l, i, o] -> [g, k·l·i, o/g], one matrix for each group."""
    k, l, i, o = w.shape
    matrices = w.reshape(k * l * i, g, o // g).transpose(1, 0, 2)
    return array_module(w).ascontiguousarray(matrices)


def _in_one(matrices: Array, shape: tuple[int, ...]) -> Array:
    """The way back: [g, k·l·i, o/g] -> [k, l, i, o]."""
    return matrices.transpose(1, 0, 2).reshape(shape)


def _turned(w: Array, g: int) -> Array:
    """The kernel of the way back: turned by 180°, i and o exchanged.   [k, l, o/g, i·g]."""
    k, l, i, o = w.shape
    exchanged = w[::-1, ::-1].reshape(k, l, i, g, o // g).transpose(0, 1, 4, 3, 2)
    return exchanged.reshape(k, l, o // g, g * i)


def _check(x: Tensor, w: Tensor, b: Tensor | None, how: tuple[Any, ...], groups: int) -> Window:
    if w.ndim != 4 or x.ndim != 4 or w.shape[2] * groups != x.shape[3] or w.shape[3] % groups:
        raise ShapeMismatch(
            f"conv2d: x is {shown(x)}, w is {shown(w)}, groups {groups}: x must be "
            "[batch, height, width, i] and w [height, width, i / groups, o], o a multiple of "
            "groups. Channels come last here; have images of [batch, channels, ...] been passed?"
        )
    if b is not None and b.shape != w.shape[3:]:
        raise ShapeMismatch(f"conv2d: b is {shown(b)}, w is {shown(w)}.")
    return window("conv2d", x.data, w.shape[:2], *how)
