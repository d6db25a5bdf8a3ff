"""Batch normalization: each channel with mean 0 and variance 1 over the batch.

    h = (x - mean) / √(variance + eps)          mean, variance: of a channel, over all rows
    z = h · gain + bias

    dx = gain / std · (dz - mean(dz) - h · mean(dz · h))

The rows of one batch may lie on several ranks. Everything that needs all of them is a sum of a few
numbers for each channel, so there are two places where the ranks have to talk: forward adds up
[rows, Σ x, Σ x²], backward [Σ dz, Σ dz · h]. Both go through `total`, which gives back what it gets
if nobody else has rows, and is an all_reduce otherwise.

The loss of each rank is a mean over its own n rows of the N of all ranks, and data parallel weights
its gradients by the share n/N afterwards. Inside batch norm gradients of other ranks arrive, which
will be weighted by the share of this one. So each rank multiplies what it sends by its own share,
and divides what comes back by it; with equal rows both cancel.

A variance by Σ x² - (Σ x)² / n loses all its digits where the mean is large beside the spread. So
each block takes its squares about its own mean, and blocks and ranks are put together in float64
(the pairwise formula of Chan, Golub & LeVeque 1979, written as sums).

Letters: n rows, c channels (the last axis).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from minipar.array import Array, array_module
from minipar.blocks import blocks, room
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, record, shown

Total = Callable[[Array], Array]
EPS = 1e-5
ROW = 512  # elements; NumPy runs over short rows several times slower
PART_BYTES = 1 << 18  # twice as much as elsewhere, for each part has its own small sums


class Moments(NamedTuple):
    """Of the rows of all ranks: how many, and mean and (biased) variance [c], in float64."""

    count: Array
    mean: Array
    variance: Array


def alone(sums: Array) -> Array:
    """The total of a rank that has all rows."""
    return sums


def batch_norm_definition(x: Tensor, gain: Tensor, bias: Tensor, eps: float = EPS) -> Tensor:
    """z = (x - mean) / √(variance + eps) · gain + bias, over all rows (Ioffe & Szegedy 2015)."""
    rows = tuple(range(x.ndim - 1))
    centred = x - x.mean(axis=rows)
    variance = (centred * centred).mean(axis=rows)
    return centred * (variance + eps) ** -0.5 * gain + bias


def batch_norm(
    x: Tensor, gain: Tensor, bias: Tensor, eps: float = EPS, total: Total = alone
) -> tuple[Tensor, Moments]:
    """`batch_norm_definition` in blocks, over the rows of all ranks.   x: [..., c]   z: [..., c].

    gain, bias: [c].   total: adds up a float64 array of 2·c + 1 numbers over the ranks.
    Each rank's loss is taken to be a mean over its rows, to be weighted by its share of them.
    Gives z, and the moments for running statistics. Keeps x and 2·c numbers until backward; gain
    and bias get the gradients of this rank's rows alone, as other parameters do.
    Cost:   one pass over x for the moments, one for z; two over x and dz backward.
    Raises: ShapeMismatch, also if there is no row at all.
    """
    xp, shape = array_module(x.data), x.shape
    wide = _widened(x, gain, bias)
    if not wide.size and total is alone:
        raise ShapeMismatch(f"batch_norm: x is {shown(x)}; no rows have no mean.")
    moments = _moments(wide, len(gain), total)
    mean, inverse_std = moments.mean, 1 / xp.sqrt(moments.variance + eps)
    scale = gain.data * inverse_std
    z = _shifted_and_scaled(wide, mean, scale, bias.data)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dz = xp.ascontiguousarray(dz).reshape(wide.shape)
        dbias, dgain = _gradient_sums(wide, dz, mean, inverse_std)
        dx = None
        if wanted[0]:  # on all ranks or on none
            share = max(1, wide.size // len(gain)) / moments.count  # without rows the sums are 0
            means = total(xp.concatenate([dbias, dgain]) * share) / (moments.count * share)
            dx = _input_gradient(wide, dz, mean, inverse_std, scale, means).reshape(shape)
        return (
            dx,
            dgain.astype(gain.dtype) if wanted[1] else None,
            dbias.astype(bias.dtype) if wanted[2] else None,
        )

    return record(z.reshape(shape), (x, gain, bias), vjp), moments


def normalize(x: Tensor, gain: Tensor, bias: Tensor, mean: Array, variance: Array) -> Tensor:
    """z = (x - mean) / √(variance + eps) · gain + bias by given moments [c]; shapes as above.

    For evaluation. Keeps x until backward; the moments are constants there.
    """
    xp, shape = array_module(x.data), x.shape
    wide = _widened(x, gain, bias)
    inverse_std = 1 / xp.sqrt(variance + EPS)
    scale = gain.data * inverse_std

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dbias = dgain = None
        if wanted[1] or wanted[2]:
            lines = xp.ascontiguousarray(dz).reshape(wide.shape)
            dbias, dgain = _gradient_sums(wide, lines, mean, inverse_std)
        return dz * scale if wanted[0] else None, dgain, dbias

    z = _shifted_and_scaled(wide, mean, scale, bias.data)
    return record(z.reshape(shape), (x, gain, bias), vjp)


def _shifted_and_scaled(wide: Array, mean: Array, scale: Array, bias: Array) -> Array:
    """(x - mean) · scale + bias."""
    xp = array_module(wide)
    z = xp.empty_like(wide)
    along = [_along(v, wide) for v in (mean, scale, bias)]
    for part in _parts(wide):
        xp.subtract(wide[part], along[0], out=z[part])
        z[part] *= along[1]
        z[part] += along[2]
    return z


def _moments(wide: Array, c: int, total: Total) -> Moments:
    """The count, mean and variance of the rows of all ranks."""
    xp = array_module(wide)
    sums = xp.zeros(2 * c + 1)
    sums[0] = wide.size // c
    for part in _parts(wide):
        n = wide[part].size // c
        mean = _channel_sums(wide[part], c) / n
        centred = wide[part] - _along(mean, wide, _sum_dtype(wide))
        centred *= centred
        sums[1 : c + 1] += n * mean
        sums[c + 1 :] += _channel_sums(centred, c) + n * mean * mean
    sums = total(sums)
    count = sums[0]
    mean, square = sums[1 : c + 1] / count, sums[c + 1 :] / count
    return Moments(count, mean, xp.maximum(square - mean * mean, 0))


def _gradient_sums(wide: Array, dz: Array, mean: Array, inverse_std: Array) -> tuple[Array, Array]:
    """Σ dz and Σ dz · h over this rank's rows, in float64."""
    xp, c = array_module(dz), len(mean)
    along = _along(mean, wide, _sum_dtype(wide))
    plain, product = xp.zeros(c), xp.zeros(c)
    for part in _parts(dz):
        plain += _channel_sums(dz[part], c)
        h = wide[part] - along
        h *= dz[part]
        product += _channel_sums(h, c)
    return plain, product * inverse_std


def _input_gradient(
    wide: Array, dz: Array, mean: Array, inverse_std: Array, scale: Array, means: Array
) -> Array:
    """dx = scale · dz - (x - mean) · slope - offset; means are those of dz and of dz · h."""
    xp, c = array_module(dz), len(mean)
    slope, offset = scale * means[c:] * inverse_std, scale * means[:c]
    dx = xp.empty_like(dz)
    along = [_along(v, wide) for v in (mean, slope, offset, scale)]
    for part in _parts(dz):
        h = wide[part] - along[0]
        h *= along[1]
        h += along[2]
        xp.multiply(dz[part], along[3], out=dx[part])
        dx[part] -= h
    return dx


def _widened(x: Tensor, gain: Tensor, bias: Tensor) -> Array:
    """[..., c] -> [n / r, r·c], r rows in a line of about ROW elements; r divides n."""
    c = x.shape[-1] if x.ndim else 0
    if gain.shape != (c,) or bias.shape != (c,) or x.ndim < 2 or not c:
        raise ShapeMismatch(
            f"batch_norm: x is {shown(x)}, gain {shown(gain)}, bias "
            f"{shown(bias)}: gain and bias must be as long as the last axis of x, its "
            "channels, and x needs another axis for the rows."
        )
    n = x.data.size // c
    r = math.gcd(n, 1 << (max(ROW // c, 1).bit_length() - 1)) or 1
    return array_module(x.data).ascontiguousarray(x.data).reshape(n // r, r * c)


def _parts(wide: Array) -> Iterator[slice]:
    return blocks(len(wide), wide[:1].nbytes, room(wide, PART_BYTES))


def _along(v: Array, wide: Array, dtype: Any = None) -> Array:
    """v [c] again and again, as long as a line of wide, in its dtype if no other is given."""
    return array_module(v).tile(v, wide.shape[1] // len(v)).astype(dtype or wide.dtype)


def _channel_sums(wide: Array, c: int) -> Array:
    """Σ over the rows, in float64."""
    sums = wide.sum(axis=0, dtype=_sum_dtype(wide))
    return sums.reshape(-1, c).sum(axis=0, dtype="float64")


def _sum_dtype(wide: Array) -> Any:
    """Half precision is summed and squared in float32."""
    return "float32" if wide.dtype.itemsize < 4 else wide.dtype
