"""The layers between g and the next f, under sequence parallel: each rank has its own positions.

                        in                           out
    SequenceEntry       x [b, t, i], on every rank   [b, t/p, o]
    SequencePositions   [b, t/p, d]                  [b, t/p, d]
    SequenceNorm        [b, t/p, d]                  [b, t/p, d]
    SequenceDropout     [b, t/p, d]                  [b, t/p, d]

Every rank has all of their weights, and uses them for its own positions only. So its gradient of
them is a part of the true one (`Replicated(summed=True)`).

Letters: b batch items, t positions, d features, i, o features in and out; p ranks, r own rank.
Paper: Korthikanti et al. 2022, section 4.2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from minipar.comm.group import Group
from minipar.labels import SHARDED, label
from minipar.nn import Dropout, LayerNorm, Linear, Positions
from minipar.ops import dropout
from minipar.parallel.sharding import Replicated
from minipar.parallel.tensor_parallel import POSITIONS, copy_to_shards, own_positions
from minipar.random import Draw, Init
from minipar.tensor import Tensor

SUMMED = Replicated(summed=True)
BOTH = MappingProxyType({"weight": SUMMED, "bias": SUMMED})


class SequenceNorm(LayerNorm):
    """Layer norm of the own positions.   x: [b, t/p, d]."""

    layout: Mapping[str, Any] = BOTH


class SequencePositions(Positions):
    """Adds their vectors to the own positions.   x: [b, t/p, d]."""

    layout: Mapping[str, Any] = MappingProxyType({"weight": SUMMED})

    def __init__(self, init: Init, n: int, d: int, std: float, group: Group) -> None:
        super().__init__(init, n, d, std)
        self.group = group

    def __call__(self, x: Tensor) -> Tensor:
        k, r = x.shape[1], self.group.rank
        return x + self.weight[r * k : (r + 1) * k]


class SequenceDropout(Dropout):
    """Dropout at the own positions: those elements that one rank would drop.   x: [b, t/p, d]."""

    def __init__(self, init: Init, p: float, group: Group) -> None:
        super().__init__(init, p)
        self.group = group

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        if draw is None or self.p == 0:
            return x
        part, parts = self.group.rank, self.group.size
        return dropout(x, draw.keep_part(self.name, x.shape, self.p, part, parts), self.p)


class SequenceEntry(Linear):
    """The first layer: from x, which all ranks have, to z at the own positions.   [b, t, i]."""

    layout: Mapping[str, Any] = BOTH

    def __init__(self, init: Init, i: int, o: int, std: float, group: Group) -> None:
        super().__init__(init, i, o, std=std)
        self.name, self.group = init.path, group

    def __call__(self, x: Tensor) -> Tensor:
        z = super().__call__(own_positions(copy_to_shards(x, self.group), self.group))
        return label(z, SHARDED, self.name, self.group, POSITIONS)
