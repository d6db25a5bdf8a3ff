"""Which ranks share the layers of a model, and the ways into and out of what is cut.

        enter (f)         through: the columns        a row        leave (g)
    x ────────────►  own features  ─────────────►  partial sum ────────────►  z

Every layer that is shared out is built with one `Shards`, and passes by it with its name: that is
what the labels of checks() say (labels.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minipar.array import Array
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.labels import PARTIAL, REPLICATED, SHARDED, expect, label
from minipar.parallel.sharding import Sharded
from minipar.parallel.tensor_parallel import (
    FEATURES,
    POSITIONS,
    copy_to_shards,
    gather_positions,
    overlapped,
    scatter_positions,
    sum_over_shards,
)
from minipar.random import Init
from minipar.tensor import Tensor


class Shards(NamedTuple):
    """Who shares the layers, and how.

    sequence: between the layer pairs each rank has its own positions.
    overlap:  a column's input gradient is sent while its weight gradient is computed.
    """

    group: Group
    sequence: bool = False
    overlap: bool = False

    def enter(self, x: Tensor, layer: str) -> Tensor:
        """f: from what is whole (or cut by positions) into the layers that are cut."""
        self.expect_between(x, layer)
        z = (gather_positions if self.sequence else copy_to_shards)(x, self.group)
        return label(z, REPLICATED, layer, self.group)

    def leave(self, x: Tensor, layer: str) -> Tensor:
        """g: the way out, where partial sums are added up."""
        expect(x, (PARTIAL,), "g, the sum over the shards,", layer, self.group)
        z = (scatter_positions if self.sequence else sum_over_shards)(x, self.group)
        kind, axis = self.between
        return label(z, kind, layer, self.group, axis)

    def through(
        self, op: Callable[..., Tensor], x: Tensor, weights: tuple[Tensor, ...], layer: str
    ) -> Tensor:
        """op(f(x), *weights): the features of this rank."""
        if self.overlap:
            self.expect_between(x, layer)
            z = overlapped(op, x, weights, self.group, self.sequence)
        else:
            z = op(self.enter(x, layer), *weights)
        return label(z, SHARDED, layer, self.group, FEATURES)

    @property
    def between(self) -> tuple[str, int | None]:
        """What x is from g to the next f: its kind, and the axis of a shard."""
        return (SHARDED, POSITIONS) if self.sequence else (REPLICATED, None)

    def expect_between(self, x: Tensor, layer: str) -> None:
        kind, axis = self.between
        expect(x, (kind,), "f, the way into the shards,", layer, self.group, axis)

    def slice(self, whole: Array, how: Sharded) -> Tensor:
        """This rank's part of a parameter."""
        return Tensor(how.cut(whole, self.group.rank, self.group.size), requires_grad=True)

    def check(self, init: Init, what: str, n: int) -> None:
        """Raises: UsageError if the ranks cannot have equal parts of n things."""
        if n % self.group.size:
            raise UsageError(
                f"{init.path}: {n} {what} cannot be shared out evenly among {self.group.size} "
                f"ranks. Choose a number that {self.group.size} divides, or other ranks."
            )
