"""Element by element: + - * /, powers, the larger or the smaller. Shapes broadcast as in NumPy.

A Python number may stand for a tensor; it takes the other's dtype. `unbroadcast` sums a gradient
over the axes along which its parent was stretched. Where a function has a corner, its vjp takes the
mean of the slopes on both sides: abs is flat at 0, and equal elements share a maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minipar.array import Array, array_module, beside, number_beside
from minipar.errors import ShapeMismatch, UsageError
from minipar.tensor import Tensor, record, shown, unbroadcast


def add(x: Any, y: Any) -> Tensor:
    """z = x + y.   Keeps nothing until backward."""
    x, y = _pair("add", x, y)
    x_shape, y_shape = x.data.shape, y.data.shape

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (
            unbroadcast(dz, x_shape) if wanted[0] else None,
            unbroadcast(dz, y_shape) if wanted[1] else None,
        )

    return record(x.data + y.data, (x, y), vjp)


def sub(x: Any, y: Any) -> Tensor:
    """z = x - y.   Keeps nothing until backward."""
    x, y = _pair("sub", x, y)
    x_shape, y_shape = x.data.shape, y.data.shape

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (
            unbroadcast(dz, x_shape) if wanted[0] else None,
            -unbroadcast(dz, y_shape) if wanted[1] else None,
        )

    return record(x.data - y.data, (x, y), vjp)


def mul(x: Any, y: Any) -> Tensor:
    """z = x · y.   Keeps x and y until backward."""
    x, y = _pair("mul", x, y)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (
            unbroadcast(dz * y.data, x.shape) if wanted[0] else None,
            unbroadcast(dz * x.data, y.shape) if wanted[1] else None,
        )

    return record(x.data * y.data, (x, y), vjp)


def div(x: Any, y: Any) -> Tensor:
    """z = x / y.   Keeps x and y until backward."""
    x, y = _pair("div", x, y)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = dz / y.data
        return (
            unbroadcast(dx, x.shape) if wanted[0] else None,
            unbroadcast(-dx * (x.data / y.data), y.shape) if wanted[1] else None,
        )

    return record(x.data / y.data, (x, y), vjp)


def neg(x: Tensor) -> Tensor:
    """z = -x.   Keeps nothing until backward."""
    return record(-x.data, (x,), lambda dz, wanted: (-dz,))


def pow(x: Any, exponent: Any) -> Tensor:
    """z = x ** exponent.   Keeps x (and, if the exponent is a tensor, that and z) until backward.

    dx = dz · exponent · x^(exponent - 1). An exponent that is a tensor, or an array, gets
    dz · z · ln x, which is taken to be 0 where x <= 0.
    """
    if not isinstance(exponent, (int, float)):
        return _power(x, exponent)
    n = exponent if isinstance(exponent, int) else float(exponent)  # NumPy's float64 is a float

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (dz * (n * x.data ** (n - 1 if n else 0)),)

    return record(x.data**n, (x,), vjp)


def _power(x: Any, y: Any) -> Tensor:
    """x ** y with an array as y."""
    x, y = _pair("pow", x, y)
    xp = array_module(x.data, y.data)
    z = x.data**y.data

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = dy = None
        if wanted[0]:
            lower = xp.where(y.data == 0, y.data, y.data - 1)  # not 0⁻¹, where x and y are 0
            dx = unbroadcast(dz * (y.data * x.data**lower), x.shape)
        if wanted[1]:
            ln = xp.log(xp.where(x.data > 0, x.data, xp.ones_like(x.data)))
            dy = unbroadcast(dz * (z * ln), y.shape)
        return dx, dy

    return record(z, (x, y), vjp)


def exp(x: Tensor) -> Tensor:
    """z = e^x.   Keeps z until backward."""
    z = array_module(x.data).exp(x.data)
    return record(z, (x,), lambda dz, wanted: (dz * z,))


def log(x: Tensor) -> Tensor:
    """z = ln x.   Keeps x until backward."""
    return record(array_module(x.data).log(x.data), (x,), lambda dz, wanted: (dz / x.data,))


def sqrt(x: Tensor) -> Tensor:
    """z = √x.   Keeps z until backward."""
    z = array_module(x.data).sqrt(x.data)
    return record(z, (x,), lambda dz, wanted: (dz / (2 * z),))


def abs(x: Tensor) -> Tensor:
    """z = |x|.   Keeps x until backward; the slope at 0 is 0."""
    xp = array_module(x.data)
    return record(xp.abs(x.data), (x,), lambda dz, wanted: (dz * xp.sign(x.data),))


def maximum(x: Any, y: Any) -> Tensor:
    """z = max(x, y).   Keeps x and y until backward; where they are equal, each gets dz / 2."""
    x, y = _pair("maximum", x, y)
    z = array_module(x.data, y.data).maximum(x.data, y.data)
    return record(z, (x, y), lambda dz, wanted: _to_larger(dz, (x, y), (x.data, y.data), wanted))


def minimum(x: Any, y: Any) -> Tensor:
    """z = min(x, y).   Keeps x and y until backward; where they are equal, each gets dz / 2."""
    x, y = _pair("minimum", x, y)
    z = array_module(x.data, y.data).minimum(x.data, y.data)
    return record(z, (x, y), lambda dz, wanted: _to_larger(dz, (x, y), (y.data, x.data), wanted))


def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """z = min(max(x, low), high), Python numbers.   Keeps x until backward.

    dx is dz where low <= x <= high, the bounds included, and 0 elsewhere. None: no bound.
    """
    if (low is None and high is None) or (None not in (low, high) and low > high):  # type: ignore[operator]
        raise UsageError(f"clip: the bounds are {low} and {high}; give one, or low <= high.")

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dx = dz if low is None else dz * (x.data >= low)
        return (dx if high is None else dx * (x.data <= high),)

    return record(x.data.clip(low, high), (x,), vjp)


def where(condition: Tensor | Array, x: Any, y: Any) -> Tensor:
    """z = x where the condition is true, y elsewhere.   Keeps the condition until backward.

    condition: bool, not differentiated. What is not chosen gets the gradient 0, whatever dz is.
    """
    chosen = condition.data if isinstance(condition, Tensor) else condition
    x, y = _pair("where", x, y)
    _check_broadcast("where", Tensor(chosen), x)
    _check_broadcast("where", Tensor(chosen), y)
    xp, chosen = array_module(x.data), beside(chosen, x.data)
    x_shape, y_shape = x.data.shape, y.data.shape

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        nothing = xp.zeros((), dz.dtype)
        return (
            unbroadcast(xp.where(chosen, dz, nothing), x_shape) if wanted[0] else None,
            unbroadcast(xp.where(chosen, nothing, dz), y_shape) if wanted[1] else None,
        )

    return record(xp.where(chosen, x.data, y.data), (x, y), vjp)


def _to_larger(
    dz: Array, parents: Sequence[Tensor], sides: Sequence[Array], wanted: Sequence[bool]
) -> Sequence[Array | None]:
    """dz to the parent whose side is the larger, half to each at a tie."""
    a, b = sides
    half_ties = 0.5 * (a == b).astype(dz.dtype)
    return [
        unbroadcast(dz * (won + half_ties), p.shape) if want else None
        for p, won, want in zip(parents, (a > b, b > a), wanted)
    ]


def _pair(op: str, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors whose shapes broadcast."""
    if not isinstance(x, Tensor):
        x = _constant(x, like=y)
    if not isinstance(y, Tensor):
        y = _constant(y, like=x)
    if x.data.shape != y.data.shape:
        _check_broadcast(op, x, y)
    return x, y


def _check_broadcast(op: str, a: Tensor, b: Tensor) -> None:
    if any(n != m and n != 1 and m != 1 for n, m in zip(a.shape[::-1], b.shape[::-1])):
        raise ShapeMismatch(
            f"{op}: {shown(a)} and {shown(b)} do not broadcast. Axes are matched from the "
            "last one, and must be equal or 1; a missing keepdims=True is the usual cause."
        )


def _constant(x: Any, like: Tensor) -> Tensor:
    if isinstance(x, (int, float)):  # a tuple: int | float would be built each time
        return Tensor(number_beside(x, like.data))
    if isinstance(x, list | tuple):  # numbers without a type of their own
        return Tensor(array_module(like.data).asarray(x, dtype=like.dtype))
    return Tensor(x)
