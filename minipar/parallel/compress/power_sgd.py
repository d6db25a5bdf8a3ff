r"""PowerSGD: a matrix of gradients travels as a product of two thin ones.

         m                     r         m
    ┌─────────┐             ┌──┐    ┌─────────┐
  n │    a    │     ≈     n │ u│  · │    vᵀ   │ r          (n + m) · r numbers instead of n · m
    └─────────┘             └──┘    └─────────┘

One round of the power iteration, begun with the v of the step before, finds nearly the best u and v
of rank r. Both halves of it are linear in a, so the ranks' parts simply add up:

    1. a = error + g                           what this rank has to say
    2. u = all_reduce(a · v)                   n · r numbers
    3. u with orthonormal columns              the same on all ranks
    4. v = all_reduce(aᵀ · u)                  m · r numbers
    5. error = a - u · (own v)ᵀ                what u cannot say, for the next step
    6. g = u · vᵀ

Vectors, and matrices that this would not make smaller, travel as they are, along with u.
Cost: two all_reduces, of Σ n·r and of Σ m·r numbers. Unlike top-k it does not grow with p.
Paper: Vogels, Karimireddy & Jaggi 2019, algorithms 1 and 2.

Letters: a matrix is [n, m]; r its rank here. A convolution's weight [k, l, i, o] is [k·l·i, o].
"""

from __future__ import annotations

import math

import numpy as np

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.parallel.flat import pack, unpack
from minipar.random import normal


class PowerSGD:
    """Sends matrices as products of rank `rank`, with error feedback."""

    def __init__(self, rank: int = 2, seed: int = 0) -> None:
        if rank < 1:
            raise UsageError(f"PowerSGD has a rank of at least 1, not {rank}.")
        self.rank, self.seed = rank, seed
        self.errors: list[Array] = []
        self.v: list[Array] = []

    def add_up(self, arrays: list[Array], group: Group) -> None:
        large = [g for g in arrays if self.shrinks(g.shape)]
        plain = [g for g in arrays if not self.shrinks(g.shape)]
        matrices = [g.reshape(-1, g.shape[-1]).copy() for g in large]
        if not self.v:
            self._begin(matrices)
        for a, error in zip(matrices, self.errors):
            a += error
        u = [a @ v for a, v in zip(matrices, self.v)]
        _all_reduce([*u, *plain], group)
        u = [_orthonormal(x) for x in u]
        v = [a.T @ x for a, x in zip(matrices, u)]
        self.errors = [a - x @ y.T for a, x, y in zip(matrices, u, v)]
        _all_reduce(v, group)
        self.v = v
        for g, x, y in zip(large, u, v):
            g[...] = (x @ y.T).reshape(g.shape)

    def shrinks(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape is sent as a product."""
        if len(shape) < 2:
            return False
        n, m = math.prod(shape[:-1]), shape[-1]
        return (n + m) * self.rank < n * m

    def _begin(self, matrices: list[Array]) -> None:
        """No errors yet, and a random v, the same on all ranks."""
        for i, a in enumerate(matrices):
            drawn = normal(self.seed, f"powersgd.{i}", (a.shape[1], self.rank))
            self.v.append(array_module(a).asarray(drawn.astype(a.dtype)))
            self.errors.append(array_module(a).zeros_like(a))


def _orthonormal(u: Array) -> Array:
    """Its columns made orthonormal; of 16 bits in 32, for which alone there is a QR."""
    wide = u.astype(np.float32) if u.dtype.itemsize == 2 else u
    return array_module(u).linalg.qr(wide)[0].astype(u.dtype, copy=False)


def _all_reduce(arrays: list[Array], group: Group) -> None:
    """The sum over the ranks, in place, in one call."""
    x = pack(arrays)
    unpack(group.all_reduce(x, out=x), arrays)
