"""Ops on float16 and bfloat16: computed in float32, rounded once.

    x, w  ── to float32 ──►  the op  ── rounded ──►  z            dz, and dx, dw, the same way back

Sixteen bits are enough to keep a number, and not enough to compute with: a sum of bfloat16 stops
growing at 256 ones, and the squares of a layer norm leave float16. So whatever adds up, divides or
has a curve is done in float32, and what is rounded is the result. The losses stay float32: what
comes after them is a mean, and the scale of a float16 run (parallel/mixed.py).

Not done here is what only moves numbers, or rounds once by itself (a sum of two); and on a GPU what
has a kernel that widens as it reads. Those are named in ops/__init__.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from minipar import cuda
from minipar.ambient import grad_enabled
from minipar.array import HALF, Array
from minipar.graph import Node
from minipar.tensor import Tensor, record


def in_float32(
    op: Callable[..., Any], *, rounded: bool = True, kernel: bool = False
) -> Callable[..., Any]:
    """The op, which computes in float32 what it is given in float16 or bfloat16.

    The result is a tensor, or a tuple that begins with one. Keeps what the op keeps, in float32.
    rounded: to what it was given; otherwise the result stays float32.
    kernel:  not where the arrays are those of `cuda.fast`: there the op has a kernel.
    """

    @functools.wraps(op)
    def wide(*args: Any, **options: Any) -> Any:
        for x in args:
            if isinstance(x, Tensor) and x.data.itemsize == 2 and x.dtype.name in HALF:
                break
        else:
            return op(*args, **options)
        if kernel and cuda.fast(x.data):
            return op(*args, **options)
        return _carried_out(op, args, options, x.dtype if rounded else None)

    return wide


def _carried_out(op: Any, args: Sequence[Any], options: Any, dtype: Any) -> Any:
    given = {}  # the id of a wide leaf: what it stands for
    wide_args = []
    for x in args:
        if isinstance(x, Tensor):
            leaf = Tensor(widened(x.data), x.requires_grad)
            given[id(leaf)] = x
            wide_args.append(leaf)
        else:
            wide_args.append(x)
    token = grad_enabled.set(bool(grad_enabled.get()))  # who watches is shown the outer op
    try:
        found = op(*wide_args, **options)
    finally:
        grad_enabled.reset(token)
    z, *rest = found if isinstance(found, tuple) else (found,)
    made = _recorded(z, given, dtype)
    return (made, *rest) if isinstance(found, tuple) else made


def _recorded(z: Tensor, given: dict[int, Tensor], dtype: Any) -> Tensor:
    """z in its dtype, as made of what was given."""
    value = z.data if dtype is None else z.data.astype(dtype)
    node = z._node
    if node is None:
        return Tensor(value)
    assert all(not isinstance(p, Node) for p in node.parents), "an op is one node"
    constant, inner = Tensor(value), node.vjp
    parents = [constant if p is None else given[id(p)] for p in node.parents]

    @functools.wraps(inner)
    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        grads = inner(widened(dz), wanted)
        return [
            None if g is None else g.astype(p.dtype, copy=False) for g, p in zip(grads, parents)
        ]

    return record(value, parents, vjp)


def widened(x: Array) -> Array:
    """x in float32 if it is float16 or bfloat16; otherwise x."""
    return x.astype("float32") if x.dtype.itemsize == 2 and x.dtype.name in HALF else x
