r"""Data parallel that sends its gradients compressed.

    rank 0:  backward   share · g  \                     / optimizer step
                                     compressed sum, the
    rank 1:  backward   share · g  /  same bits on all   \ optimizer step

It is the naive form with another all-reduce: a `Compressor`, which gives only about the sum, for
fewer bytes. All ranks get the same bits, so replicas stay equal; what they compute is not what one
rank would, but exactly what one process would that holds all replicas' gradients and rounds them
likewise. Each compressor states its bytes, `cost` has them as formulas.

Gradients of tables (`minipar.sparse`) go as rows, uncompressed. What a compressor remembers is not
in checkpoints: after a resume it begins as in the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from minipar.array import Array
from minipar.comm.group import Group
from minipar.nn import Module
from minipar.parallel.data import reduce_each
from minipar.parallel.replicas import Replicas
from minipar.parallel.shares import dense_gradient, exchange
from minipar.parallel.strategy import MakeOptimizer


class Compressor(Protocol):
    """A sum over the ranks for fewer bytes. It may remember what it has not sent yet."""

    def add_up(self, arrays: list[Array], group: Group) -> None:
        """Overwrite the arrays with about their sum over all ranks, the same bits on each.

        arrays: the same shapes in each call, and on each rank.
        """


class Apart:
    """Compresses arrays of each kind among themselves, with a memory of their own.

    A compressor that looks at many numbers at once makes of each what the others let it. Ranks that
    share layers have other slices, and all of what is replicated: that stays alike on them if it is
    compressed without what is not.
    """

    def __init__(self, make: Callable[[], Compressor], kinds: Sequence[Hashable]) -> None:
        """kinds: of the arrays that `add_up` gets, in their order."""
        self.kinds, self.hows = kinds, {kind: make() for kind in dict.fromkeys(kinds)}

    def add_up(self, arrays: list[Array], group: Group) -> None:
        pairs = list(zip(arrays, self.kinds, strict=True))
        for kind, how in self.hows.items():
            how.add_up([array for array, other in pairs if other == kind], group)


class Compressed(Replicas):
    """Keeps the replicas of `model` equal, with gradients that travel as `how` sends them."""

    def __init__(
        self,
        model: Module,
        group: Group,
        make_optimizer: MakeOptimizer,
        how: Compressor,
        *,
        check_every: int = 0,
    ) -> None:
        """how: one for this strategy alone, for it may have a memory.  The rest: see Replicas."""
        super().__init__(model, group, make_optimizer, check_every=check_every)
        self.how = how

    def _reduce(self, rows: float) -> None:
        shares, dense = exchange(self.trained, rows, self.group)
        share = float(shares[self.group.rank])
        parameters = [x for _, x in self.trained]
        reduce_each([(x, False) for x, d in zip(parameters, dense) if not d], share, self.group)
        grads = []
        for x in (x for x, d in zip(parameters, dense) if d):
            x.grad = g = dense_gradient(x)
            g *= share
            grads.append(g)
        self.how.add_up(grads, self.group)
