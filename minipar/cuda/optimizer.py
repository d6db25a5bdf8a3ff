"""All parameters in one launch: AdamW, the norm of the gradients, and clipping (optimizer.cu).

A model has hundreds of parameters, most of them tiny: one launch each would take the host longer
than the GPU needs for all. So the kernels read a table that says where everything lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minipar.cuda.source import Array, contiguous, fast, launch

THREADS, BLOCKS = 256, 1056  # of the largest parameter; eight blocks on each of 132 processors
SLOT = np.dtype([(name, "u8") for name in ("x", "g", "m", "v", "low", "n")] + [("keep", "f8")])


class Part(NamedTuple):
    """A parameter. x, m, v: float32; g and low: any float. Of one size, contiguous but for g.

    low: becomes a copy of the new x, for a model that computes in less precision; or None.
    """

    x: Array
    g: Array
    m: Array
    v: Array
    low: Array | None
    decay: float


class Rates(NamedTuple):
    """What a step of AdamW depends on beside its arrays.   step: 1, 2, ...

    scale: what the gradients are multiplied by as they are read.
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    step: int
    scale: float = 1.0


def updates(x: Array, g: object, low: Array | None) -> bool:
    """Whether `adamw` takes a parameter, its gradient and its copy."""
    if g is None or not fast(x) or x.itemsize != 4:
        return False
    return isinstance(g, type(x)) and fast(g, *(() if low is None else (low,)))


def adamw(parts: Sequence[Part], rates: Rates) -> None:
    """One step, in place: what `optim.AdamW` says.   A launch for each dtype of gradients.

    The corrections of the means are drawn into lr and eps, as in `optim`.
    """
    alike: dict[Any, list[Part]] = {}
    for part in parts:
        alike.setdefault(part.g.dtype, []).append(part._replace(g=contiguous(part.g)))
    for same in alike.values():
        _adamw(same, rates)


def _adamw(parts: Sequence[Part], rates: Rates) -> None:
    lr, (beta1, beta2), eps, step, scale = rates
    root = math.sqrt(1 - beta2**step)
    factors = (scale, beta1, beta2, lr * root / (1 - beta1**step), eps * root)
    slots = [
        (*[0 if a is None else a.data.ptr for a in part[:5]], part.x.size, 1 - lr * part.decay)
        for part in parts
    ]
    _launch("adamw", [part.g for part in parts], slots, *factors)


def squared_norm(grads: Sequence[Array]) -> Array:
    """Σ g² over all of them, float64 [].   All contiguous, of one dtype."""
    import cupy

    sums = cupy.empty((len(grads), _blocks(grads)), "float64")
    _launch("squares", grads, _only(grads), sums)
    return sums.sum()


def scale(grads: Sequence[Array], factor: float) -> None:
    """g *= factor, for each."""
    _launch("scale", grads, _only(grads), float(factor))


def _only(grads: Sequence[Array]) -> list[tuple[float, ...]]:
    return [(0, g.data.ptr, 0, 0, 0, g.size, 0.0) for g in grads]


def _blocks(grads: Sequence[Array]) -> int:
    return max(1, min(BLOCKS, -(-max(g.size for g in grads) // THREADS)))


def _launch(
    name: str, grads: Sequence[Array], slots: list[tuple[float, ...]], *arguments: object
) -> None:
    import cupy

    table = cupy.asarray(np.array(slots, SLOT).view("u1"))
    kernel = ("optimizer", name, grads[0].dtype, 1)
    launch(kernel, (_blocks(grads), len(grads)), (THREADS,), table, *arguments)
