"""The error function, which NumPy does not have, and the gelu that is made of it.

    erf u = 2/√π ∫₀ᵘ e^(-v²) dv          Φ(x) = (1 + erf(x/√2)) / 2, the normal distribution

For u >= 0 the rest 1 - erf u = erfc u falls like e^(-u²) / (u √π). What is left of it after these
factors, f = erfc(u) · e^(u²) · (1 + 2u), is smooth and always between 1 and 1.25, so one polynomial
serves all u, from 0 to infinity, in q = (u - K) / (u + K), from -1 to 1 (Shepherd & Laframboise
1981). The coefficients are those of the Chebyshev interpolation of f in q,
computed with 60 digits, highest power first. They make erfc right to 4e-16 in float64 (23 of them)
and 2e-8 in float32 (12), as a share of f, before any rounding.
"""

from __future__ import annotations

import math

from minipar.array import Array, array_module
from minipar.ops.nonlinear import keeping_slope
from minipar.tensor import Tensor

K = 3.75
SINGLE = (
    -2.28747234e-4,
    3.96704638e-4,
    0.00168866223,
    -0.00984549109,
    0.0283964821,
    -0.0586459829,
    0.092296368,
    -0.108814585,
    0.0822774176,
    0.0035863101,
    -0.140240608,
    1.23751262,
)
DOUBLE = (
    -2.7293941332533855e-09,
    -1.952790162974837e-09,
    3.256499083798513e-08,
    1.8778501156468795e-08,
    -2.4996538037405243e-07,
    -5.0816911811698186e-08,
    1.7438577411359181e-06,
    -9.79297529099823e-07,
    -1.143961526007595e-05,
    2.238759272534769e-05,
    5.164737123871838e-05,
    -0.0002901553656394713,
    0.00029371408777227685,
    0.0017556261692276722,
    -0.00974657962081509,
    0.028362277371370044,
    -0.058693398584491845,
    0.09230432116435616,
    -0.10880393014193915,
    0.08227673848999159,
    0.0035854154854663067,
    -0.14024059858554522,
    1.2375126308378275,
)


def erf(x: Tensor) -> Tensor:
    """z = 2/√π ∫₀ˣ e^(-u²) du, the error function.   Keeps the slope dz/dx until backward.

    The error is below 1e-15 in float64 (absolute: close to 0 that is not relative to z).
    """
    return keeping_slope(x, _erf_block)


def _erf_block(x: Array, z: Array, slope: Array | None) -> None:
    xp = array_module(x)
    u = xp.abs(x)
    e = xp.exp(-(u * u))
    xp.subtract(1, _erfc(u, e), out=z)
    z *= xp.sign(x)
    if slope is not None:
        xp.multiply(e, 2 / math.sqrt(math.pi), out=slope)


def gelu_erf_definition(x: Tensor) -> Tensor:
    """z = x · Φ(x) = x/2 · (1 + erf(x/√2))   (Hendrycks & Gimpel 2016, the exact form)."""
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


def gelu_erf(x: Tensor) -> Tensor:
    """`gelu_erf_definition`, in blocks that fit the cache.   Keeps the slope dz/dx until backward.

    The slope is Φ(x) + x · e^(-x²/2) / √(2π). Left of 0, Φ(x) is erfc itself and not a difference
    to 1, so small values of z are as precise as large ones.
    """
    return keeping_slope(x, _gelu_erf_block)


def _gelu_erf_block(x: Array, z: Array, slope: Array | None) -> None:
    xp = array_module(x)
    e = x * x
    e *= -0.5
    xp.exp(e, out=e)
    u = xp.abs(x)
    u *= math.sqrt(0.5)
    tail = _erfc(u, e)
    tail *= 0.5  # Φ(-|x|)
    phi = xp.where(x < 0, tail, 1 - tail)
    xp.multiply(x, phi, out=z)
    if slope is not None:
        e *= 1 / math.sqrt(2 * math.pi)
        xp.multiply(x, e, out=slope)
        slope += phi


def _erfc(u: Array, e: Array) -> Array:
    """erfc(u) = f · e / (1 + 2u) for u >= 0, where e is e^(-u²); u is used up."""
    xp = array_module(u)
    q = 1 - 2 * K / (u + K)
    first, *rest = DOUBLE if u.itemsize > 4 else SINGLE
    f = q * first
    for c in rest[:-1]:
        f += c
        f *= q
    f += rest[-1]
    f *= e
    u *= 2
    u += 1
    xp.divide(f, u, out=f)
    return f
