"""Element by element: + - * / and powers. Shapes broadcast as in NumPy.

A Python number may stand for a tensor; it takes the other's dtype. `unbroadcast` sums a gradient
over the axes along which its parent was stretched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minipar.array import Array, array_module, describe
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, record, unbroadcast


def add(x: Any, y: Any) -> Tensor:
    """z = x + y.   Keeps nothing until backward."""
    x, y = _pair("add", x, y)
    x_shape, y_shape = x.shape, y.shape

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (
            unbroadcast(dz, x_shape) if wanted[0] else None,
            unbroadcast(dz, y_shape) if wanted[1] else None,
        )

    return record(x.data + y.data, (x, y), vjp)


def sub(x: Any, y: Any) -> Tensor:
    """z = x - y.   Keeps nothing until backward."""
    x, y = _pair("sub", x, y)
    x_shape, y_shape = x.shape, y.shape

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


def pow(x: Tensor, exponent: float) -> Tensor:
    """z = x ** exponent, a Python number.   Keeps x until backward."""

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (dz * (exponent * x.data ** (exponent - 1)),)

    return record(x.data**exponent, (x,), vjp)


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


def _pair(op: str, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors whose shapes broadcast."""
    if not isinstance(x, Tensor):
        x = _constant(x, like=y)
    if not isinstance(y, Tensor):
        y = _constant(y, like=x)
    a, b = x.shape, y.shape
    if a != b and any(n != m and n != 1 and m != 1 for n, m in zip(a[::-1], b[::-1])):
        raise ShapeMismatch(
            f"{op}: {describe(x.data)} and {describe(y.data)} do not broadcast. Axes are matched "
            "from the last one, and must be equal or 1; a missing keepdims=True is the usual cause."
        )
    return x, y


def _constant(x: Any, like: Tensor) -> Tensor:
    if isinstance(x, (int, float)):  # a tuple: int | float would be built each time
        return Tensor(array_module(like.data).asarray(x, dtype=like.dtype))
    return Tensor(x)
