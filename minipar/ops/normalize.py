"""Functions of a whole row: softmax, its logarithm, layer and RMS normalization.

Letters: n rows, d elements a row.
"""

from __future__ import annotations

from collections.abc import Sequence

from minipar import cuda
from minipar.array import Array, array_module
from minipar.blocks import blocks, room
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, record, shown


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """z = e^x / Σ e^x along an axis.   Keeps z until backward.

    The largest x is subtracted first: that changes nothing but keeps e^x finite.
    """
    z = x.data - x.data.max(axis=axis, keepdims=True)
    array_module(z).exp(z, out=z)
    z /= z.sum(axis=axis, keepdims=True)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (z * (dz - (dz * z).sum(axis=axis, keepdims=True)),)

    return record(z, (x,), vjp)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """z = x - ln Σ e^x along an axis.   Keeps z until backward.

    The logarithm of `softmax`, also where that is too small for a float.
    """
    xp = array_module(x.data)
    z = x.data - x.data.max(axis=axis, keepdims=True)
    z -= xp.log(xp.exp(z).sum(axis=axis, keepdims=True))

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (dz - xp.exp(z) * dz.sum(axis=axis, keepdims=True),)

    return record(z, (x,), vjp)


def layer_norm_definition(x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """z = (x - mean) / √(variance + eps) · gain + bias over the last axis (Ba et al. 2016)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred * (variance + eps) ** -0.5 * gain + bias


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """`layer_norm_definition`, in blocks of rows.   x: [..., d]   gain, bias: [d]   z: [..., d].

    Keeps h = (x - mean) / std and 1/std until backward, where, with dh = dz · gain,
    dx = (dh - mean(dh) - h · mean(dh · h)) / std, dgain = Σ dz · h, dbias = Σ dz over the rows.
    """
    d = x.shape[-1] if x.ndim else 0
    if gain.shape != (d,) or bias.shape != (d,):
        raise ShapeMismatch(
            f"layer_norm: x is {shown(x)}, gain {shown(gain)}, bias "
            f"{shown(bias)}: gain and bias must be as long as the last axis of x."
        )
    if d <= cuda.LONGEST_ROW and cuda.fast(x.data, gain.data, bias.data):
        z, back = cuda.layer_norm(x.data, gain.data, bias.data, eps)
        return record(z, (x, gain, bias), back)
    xp = array_module(x.data)
    rows = xp.ascontiguousarray(x.data).reshape(-1, d)
    z, h = xp.empty_like(rows), xp.empty_like(rows)
    inverse_std = xp.empty((len(rows), 1), rows.dtype)
    average = xp.full((d, 1), 1 / d, rows.dtype)  # rows @ average: their means, by BLAS
    for part in blocks(len(rows), d * rows.itemsize, room(rows)):
        xp.subtract(rows[part], rows[part] @ average, out=h[part])
        variance = (h[part] * h[part]) @ average
        inverse_std[part] = 1 / xp.sqrt(variance + eps)
        h[part] *= inverse_std[part]
        xp.multiply(h[part], gain.data, out=z[part])
        z[part] += bias.data
    shape = x.shape

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dz = dz.reshape(-1, d)
        dx = xp.empty_like(h) if wanted[0] else None
        dgain = xp.zeros(d, h.dtype) if wanted[1] else None
        weights = gain.data[:, None] / d  # dz @ weights: the row means of dh
        for part in blocks(len(h), d * h.itemsize, room(h)):
            product = dz[part] * h[part]
            if dgain is not None:
                dgain += product.sum(axis=0)
            if dx is not None:
                xp.multiply(h[part], product @ weights, out=product)
                product += dz[part] @ weights
                xp.multiply(dz[part], gain.data, out=dx[part])
                dx[part] -= product
                dx[part] *= inverse_std[part]
        dx = None if dx is None else dx.reshape(shape)
        return dx, dgain, dz.sum(axis=0) if wanted[2] else None

    return record(z.reshape(shape), (x, gain, bias), vjp)


def rms_norm_definition(x: Tensor, gain: Tensor, eps: float = 1e-5) -> Tensor:
    """z = x / √(mean(x²) + eps) · gain over the last axis (Zhang & Sennrich 2019)."""
    return x * ((x * x).mean(axis=-1, keepdims=True) + eps) ** -0.5 * gain


def rms_norm(x: Tensor, gain: Tensor, eps: float = 1e-5) -> Tensor:
    """`rms_norm_definition`, in blocks of rows.   x: [..., d]   gain: [d]   z: [..., d].

    A layer norm that neither centres nor shifts. Keeps h = x / rms and 1/rms until backward, where,
    with dh = dz · gain, dx = (dh - h · mean(dh · h)) / rms and dgain = Σ dz · h over the rows.
    """
    d = x.shape[-1] if x.ndim else 0
    if gain.shape != (d,):
        raise ShapeMismatch(
            f"rms_norm: x is {shown(x)}, gain {shown(gain)}: gain must be as long "
            "as the last axis of x."
        )
    if d <= cuda.LONGEST_ROW and cuda.fast(x.data, gain.data):
        z, back = cuda.rms_norm(x.data, gain.data, eps)
        return record(z, (x, gain), back)
    xp = array_module(x.data)
    rows = xp.ascontiguousarray(x.data).reshape(-1, d)
    z, h = xp.empty_like(rows), xp.empty_like(rows)
    inverse_rms = xp.empty((len(rows), 1), rows.dtype)
    average = xp.full((d, 1), 1 / d, rows.dtype)  # squares @ average: their means, by BLAS
    for part in blocks(len(rows), d * rows.itemsize, room(rows)):
        xp.multiply(rows[part], rows[part], out=h[part])
        inverse_rms[part] = 1 / xp.sqrt(h[part] @ average + eps)
        xp.multiply(rows[part], inverse_rms[part], out=h[part])
        xp.multiply(h[part], gain.data, out=z[part])
    shape = x.shape

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dz = dz.reshape(-1, d)
        dx = xp.empty_like(h) if wanted[0] else None
        dgain = xp.zeros(d, h.dtype) if wanted[1] else None
        weights = gain.data[:, None] / d  # (dz · h) @ weights: the row means of dh · h
        for part in blocks(len(h), d * h.itemsize, room(h)):
            product = dz[part] * h[part]
            if dgain is not None:
                dgain += product.sum(axis=0)
            if dx is not None:
                xp.multiply(h[part], product @ weights, out=product)
                xp.multiply(dz[part], gain.data, out=dx[part])
                dx[part] -= product
                dx[part] *= inverse_rms[part]
        return None if dx is None else dx.reshape(shape), dgain

    return record(z.reshape(shape), (x, gain), vjp)
