r"""Which part of which parameter a rank has: one table for each model.

    Sharded(axis=1, n=12)              Sharded(axis=1, n=12, parts=3)     q, k and v in a matrix
    ┌──────┬──────┬──────┐             ┌──┬──┬──┬──┬──┬──┬──┬──┬──┐
    │ r 0  │ r 1  │ r 2  │             │ 0│ 1│ 2│ 0│ 1│ 2│ 0│ 1│ 2│
    │      │      │      │             │  │  │  │  │  │  │  │  │  │
    └──────┴──────┴──────┘             └──┴──┴──┴──┴──┴──┴──┴──┴──┘

    Replicated()               every rank has all of it, and the same gradient
    Replicated(summed=True)    every rank has all of it, but used it for a part of the work only
                               (its own positions): the gradients of all add up to the true one

A module says so itself, in its attribute `layout`, for the parameters that it holds; what no module
speaks of is replicated. From the table come the weights and optimizer states of one rank (which
have another number of ranks, or none, in common), the norm in which each parameter counts once, and
the sum of gradients.

Letters: p ranks, r own rank, k what a rank has of a part along the axis, zeros at the end included
if p does not divide n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array, array_module, describe
from minipar.comm.group import Group
from minipar.errors import ShapeMismatch, UsageError
from minipar.nn import Module
from minipar.optim import squared_norm
from minipar.parallel.held import Cut, Held
from minipar.tensor import Tensor


class Sharded(NamedTuple):
    """Cut along an axis, which has length n in the whole array; each of equal parts by itself."""

    axis: int
    n: int
    parts: int = 1

    def cut(self, whole: Array, r: int, p: int) -> Array:
        """What rank r has of the array, in memory of its own."""
        xp, k = array_module(whole), self.each(p)
        if whole.size > 1 and not any(whole.strides):  # of what takes no memory, a part that is so
            shape = [*whole.shape[: self.axis], self.parts * k, *whole.shape[self.axis + 1 :]]
            return xp.broadcast_to(whole[(slice(1),) * whole.ndim], shape)
        x = xp.moveaxis(whole, self.axis, 0)
        rest, missing = x.shape[1:], self.parts * p * k - self.n
        if missing:
            x = xp.concatenate([x, xp.zeros((missing, *rest), x.dtype)])
        piece = x.reshape(self.parts, p, k, *rest)[:, r].reshape(self.parts * k, *rest)
        return xp.moveaxis(piece, 0, self.axis).copy()

    def join(self, pieces: Array) -> Array:
        """The whole array.   pieces: those of all ranks, [p, ...]."""
        xp, p, k = array_module(pieces), len(pieces), self.each(len(pieces))
        x = xp.moveaxis(pieces, self.axis + 1, 1)
        rest = x.shape[2:]
        x = x.reshape(p, self.parts, k, *rest).swapaxes(0, 1).reshape(-1, *rest)[: self.n]
        return xp.moveaxis(x, 0, self.axis).copy()

    def each(self, p: int) -> int:
        """k, of each part.  Raises: UsageError if there are several, and they cannot be cut."""
        if self.parts > 1 and self.n % (self.parts * p):
            raise UsageError(f"{self.parts} parts of {self.n} cannot be cut into {p} each.")
        return math.ceil(self.n / self.parts / p)

    def spans(self, r: int, p: int) -> tuple[tuple[int, int, int], ...]:
        """Where the parts lie that rank r has: from where there, from where in the whole, how many.

        Zeros that fill up the last ranks are not among them.
        """
        k, n = self.each(p), self.n // self.parts
        found = [(i * k, i * n + r * k, min(k, n - r * k)) for i in range(self.parts)]
        return tuple(span for span in found if span[2] > 0)

    def whole_shape(self, piece: tuple[int, ...]) -> tuple[int, ...]:
        return (*piece[: self.axis], self.n, *piece[self.axis + 1 :])


class Replicated(NamedTuple):
    """Every rank has all of it; summed: and a part of its gradient."""

    summed: bool = False


Table = Mapping[str, Sharded | Replicated]


def sharding(model: Module) -> dict[str, Sharded | Replicated]:
    """How each parameter lies, by name."""
    said = {
        id(getattr(module, name)): layout
        for module in model.modules()
        for name, layout in getattr(module, "layout", {}).items()
    }
    return {name: said.get(id(x), Replicated()) for name, x in model.named_parameters()}


def kinds_of(model: Module) -> list[str | Replicated]:
    """Of the trained parameters: a slice, or which kind of replicated."""
    table = sharding(model)
    found = [table[name] for name, x in model.named_parameters() if x.requires_grad]
    return ["sharded" if isinstance(how, Sharded) else how for how in found]


def whole_state(state: Mapping[str, Array], table: Table, group: Group) -> dict[str, Array]:
    """Arrays named after parameters, as one rank would have them (collective).

    state: of a model ("norm.weight"), or of an optimizer ("norm.weight/m"; "step" is left alone).
    Cost: an all_gather for each sharded array.
    """
    found = {}
    for name, array in state.items():
        how = table.get(name.partition("/")[0])
        found[name] = how.join(group.all_gather(array)) if isinstance(how, Sharded) else array
    return found


def placed(held: Held, table: Table, group: Group) -> Held:
    """What a rank of the group holds, in its place in the whole array."""
    how = table.get(held.parameter)
    if not isinstance(how, Sharded):
        return held
    return held._replace(cut=Cut(how.axis, how.n, how.spans(group.rank, group.size)))


def own_state(whole: Mapping[str, Any], model: Module, group: Group) -> dict[str, Array]:
    """The way back: what this rank has of the arrays of one rank.  Raises: ShapeMismatch."""
    table, found = sharding(model), {}
    shapes = {name: x.shape for name, x in model.named_parameters()}
    for key, array in whole.items():
        name = key.partition("/")[0]
        how = table.get(name)
        if isinstance(how, Sharded):
            wanted = how.whole_shape(shapes[name])
            if array.shape != wanted:
                raise ShapeMismatch(
                    f"{key} is {describe(array)} in what was loaded; in this model, which "
                    f"{group.size} ranks share, it is {list(wanted)} in all."
                )
            array = how.cut(array, group.rank, group.size)
        found[key] = array
    return found


def sum_gradients(named: Iterable[tuple[str, Tensor]], table: Table, group: Group) -> None:
    """Add up over the ranks the gradients of `summed` parameters, in place (collective).

    Cost: one all_reduce of all of them together.
    """
    partial = [
        x.grad for name, x in named if table[name] == Replicated(True) and x.grad is not None
    ]
    if not partial:
        return
    xp = array_module(partial[0])
    flat = xp.concatenate([g.reshape(-1) for g in partial])
    group.all_reduce(flat, out=flat)
    start = 0
    for g in partial:
        g[...] = flat[start : start + g.size].reshape(g.shape)
        start += g.size


def clip_sharded_norm(
    named: Iterable[tuple[str, Tensor]],
    table: Table,
    group: Group,
    max_norm: float,
    over: Group | None = None,
) -> float:
    """As `clip_grad_norm` of the whole model: each number counts once (collective).

    over: the ranks that hold the whole gradient between them, if those of group hold a part of it.
    Rank 0 of group counts what all of group have.  Cost: an all_reduce of one number.
    """
    pairs = [(name, x.grad) for name, x in named if x.grad is not None]
    counted = [g for name, g in pairs if group.rank == 0 or isinstance(table[name], Sharded)]
    square = (over or group).all_reduce(np.array(float(sum(squared_norm(g) for g in counted))))
    norm = math.sqrt(float(square))
    if norm > max_norm:
        for _, g in pairs:
            g *= max_norm / norm
    return norm
