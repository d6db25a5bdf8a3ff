"""Convolution with a kernel of its own for each channel (the g = i case of conv.py).

    z[y, x, c] = Σ over k, l of x[y + k, x + l, c] · w[k, l, c]

A matrix product would have one column. So this is k·l multiplications of whole images instead, and
as many additions, in parts that fit the cache. The weights are repeated along a row of the image:
NumPy then runs over whole rows and not over a few channels at a time.

Letters: as in conv.py; m = o / i outputs for each channel, nearly always 1.
Paper: Howard et al. 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

from minipar.array import Array, array_module
from minipar.windows import Window, back, forth


def forward(x: Array, w: Array, win: Window) -> Array:
    """x: [b, h, w, i]   w: [k, l, 1, i·m]   ->   [b, y, x, i·m]."""
    xp, (k, l, _, o) = array_module(x), w.shape
    down, across = win.out(*x.shape[1:3])
    z = xp.zeros((len(x), down, across, x.shape[3], o // x.shape[3]), xp.result_type(x, w))
    along = _along_a_row(w, z.shape)
    for at, view in forth(x, win, _row_bytes(z)):
        term = xp.empty(z[at].shape, z.dtype)
        for at_k in range(k):
            for at_l in range(l):
                xp.multiply(view[:, :, :, at_k, at_l, :, None], along[at_k, at_l], out=term)
                z[at] += term
    return z.reshape(len(x), down, across, o)


def gradients(
    x: Array, w: Array, dz: Array, win: Window, wanted: Sequence[bool]
) -> tuple[Array | None, Array | None]:
    """dx and dw, those wanted."""
    dz = dz.reshape(*dz.shape[:3], x.shape[3], w.shape[3] // x.shape[3])
    dx = _input_gradient(x, w, dz, win) if wanted[0] else None
    return dx, _weight_gradient(x, w, dz, win) if wanted[1] else None


def _input_gradient(x: Array, w: Array, dz: Array, win: Window) -> Array:
    dx = array_module(x).empty(x.shape, dz.dtype)
    along = _along_a_row(w, dz.shape)
    for at, view in back(dx, win, _row_bytes(dz)):
        for at_k in range(w.shape[0]):
            for at_l in range(w.shape[1]):
                term = dz[at] * along[at_k, at_l]
                view[:, :, :, at_k, at_l] += term.sum(-1) if dz.shape[-1] > 1 else term[..., 0]
    return dx


def _weight_gradient(x: Array, w: Array, dz: Array, win: Window) -> Array:
    xp, (k, l, _, o) = array_module(x), w.shape
    dw = xp.zeros((k, l, dz.shape[2] * o), dz.dtype)
    for at, view in forth(x, win, _row_bytes(dz)):
        term = xp.empty(dz[at].shape, dz.dtype)
        for at_k in range(k):
            for at_l in range(l):
                xp.multiply(view[:, :, :, at_k, at_l, :, None], dz[at], out=term)
                dw[at_k, at_l] += term.reshape(-1, dw.shape[2]).sum(axis=0)
    return dw.reshape(k, l, -1, o).sum(axis=2).reshape(w.shape)


def _along_a_row(w: Array, shape: tuple[int, ...]) -> Array:
    """[k, l, 1, i·m] -> [k, l, x, i, m], the same for each x."""
    k, l = w.shape[:2]
    kernel = w.reshape(k, l, 1, *shape[3:])
    return array_module(w).tile(kernel, (1, 1, shape[2], 1, 1))


def _row_bytes(z: Array) -> int:
    """Four such arrays are in use at a time."""
    return 4 * z[0, 0].size * z.dtype.itemsize if len(z) else 1
