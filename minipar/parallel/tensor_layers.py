"""Layers that hold a slice of their weights, and the kit that builds a model of them.

    kit = TensorKit(group)              or TensorKit(group, sequence=True)
    model = GPT(Init(seed), ..., kit=kit)

The full weight is drawn from (seed, name), and the slice of it is kept: so all numbers of ranks
begin with one model. What goes in and out is what the idea (tensor_parallel.py) makes of it:

                            in                          out
    ColumnLinear            x, whole; or its positions  the own features
    RowLinear               the own features            z, whole; or its positions
    VocabParallelEmbedding  ids, whole                  z, whole; or its positions
      .logits               x, whole; or its positions  logits of the own classes

Letters: b batch items, t positions, d features, i, o features in and out; p ranks, r own rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minipar.array import Array, array_module, beside, describe, extremes
from minipar.comm.group import Group
from minipar.errors import ShapeMismatch, UsageError
from minipar.labels import PARTIAL, REPLICATED, SHARDED, expect, label
from minipar.nn import Dropout, Embedding, Kit, LayerNorm, Linear, Positions
from minipar.nn.layers import STD, GroupedQKV, Output, split_heads
from minipar.ops import linear, linear_gelu
from minipar.parallel.sequence_layers import (
    BOTH,
    SequenceDropout,
    SequenceEntry,
    SequenceNorm,
    SequencePositions,
)
from minipar.parallel.sharding import Replicated, Sharded
from minipar.parallel.shards import Shards
from minipar.parallel.tensor_parallel import (
    FEATURES,
    gather_features,
    sum_over_shards,
)
from minipar.parallel.vocab_loss import vocab_parallel_cross_entropy
from minipar.random import Init
from minipar.segments import sum_to_table
from minipar.tensor import Tensor, plain, record


class ColumnLinear(Linear):
    """z = x @ weight + bias, of the own outputs.   weight: [i, o/p]   z: [..., o/p].

    parts:  the outputs are so many equal parts, each shared out by itself (3: q, k and v).
    gather: z has all outputs, on every rank.
    pad:    the last ranks may have outputs that do not exist, with weights of zero.
    Keeps x and the own weights. Backward: an all-reduce of dx (reduce-scatter under sequence).
    """

    def __init__(
        self,
        init: Init,
        i: int,
        o: int,
        shards: Shards,
        std: float = STD,
        parts: int = 1,
        gather: bool = False,
        pad: bool = False,
    ) -> None:
        if not pad:
            shards.check(init, "outputs", o // parts)
        self.name, self.shards, self.gather = init.path, shards, gather
        self.layout = {"weight": Sharded(1, o, parts), "bias": Sharded(0, o, parts)}
        self.weight = shards.slice(init.normal("weight", (i, o), std), self.layout["weight"])
        self.bias: Tensor = shards.slice(init.zeros("bias", (o,)), self.layout["bias"])

    def __call__(self, x: Tensor) -> Tensor:
        z = self.shards.through(linear, x, (self.weight, self.bias), self.name)
        if not self.gather:
            return z
        z = gather_features(z, self.shards.group)
        return label(z, REPLICATED, self.name, self.shards.group)

    def gelu(self, x: Tensor) -> Tensor:
        return self.shards.through(linear_gelu, x, (self.weight, self.bias), self.name)


class RowLinear(Linear):
    """z = Σ over ranks of x @ weight, + bias.   x: [..., i/p]   weight: [i/p, o]   z: [..., o].

    Keeps x and the own weights. Forward: an all-reduce of z (reduce-scatter under sequence).
    """

    def __init__(self, init: Init, i: int, o: int, shards: Shards, std: float = STD) -> None:
        shards.check(init, "inputs", i)
        self.name, self.shards = init.path, shards
        # Under sequence parallel the bias is added to the own positions only.
        self.layout = {"weight": Sharded(0, i), "bias": Replicated(shards.sequence)}
        self.weight = shards.slice(init.normal("weight", (i, o), std), Sharded(0, i))
        self.bias: Tensor = Tensor(init.zeros("bias", (o,)), requires_grad=True)

    def __call__(self, x: Tensor) -> Tensor:
        expect(x, (SHARDED,), "a row layer", self.name, self.shards.group, FEATURES)
        z = label(linear(x, self.weight), PARTIAL, self.name, self.shards.group)
        return self.shards.leave(z, self.name) + self.bias


class VocabParallelEmbedding(Embedding):
    """z = weight[ids], the rows shared out.   weight: [n/p, d], padded   ids: integers [b, t].

    A rank looks up the ids that are its own, and has zeros for the others; the sum over the ranks
    has all of them.  Keeps the own ids. Forward: an all-reduce of z (reduce-scatter).
    """

    def __init__(self, init: Init, n: int, d: int, shards: Shards) -> None:
        self.name, self.shards, self.n = init.path, shards, n
        self.layout = {"weight": Sharded(0, n)}
        self.weight = shards.slice(init.normal("weight", (n, d), STD), Sharded(0, n))
        self.sparse = False

    def __call__(self, ids: Tensor | Array) -> Tensor:
        index = plain(ids)
        if index.dtype.kind not in "iu":
            raise ShapeMismatch(f"embedding: the ids are {describe(index)}; they must be integers.")
        if index.size:
            low, high = extremes(index)
            if low < 0 or high >= self.n:
                raise ShapeMismatch(
                    f"embedding: the ids run from {low} to {high}, the table has {self.n} rows."
                    " Is the vocabulary of the model that of the data?"
                )
        group = self.shards.group
        z = label(own_rows(self.weight, index, group.rank), PARTIAL, self.name, group)
        return self.shards.leave(z, self.name)

    def logits(self, x: Tensor) -> Tensor:
        """Of the own classes.   x: [b, t, d] -> [b, t, n/p]."""
        z = linear(self.shards.enter(x, self.name), self.weight.T)
        return label(z, SHARDED, self.name, self.shards.group, FEATURES)


def own_rows(w: Tensor, ids: Array, r: int) -> Tensor:
    """z = row id of the whole table if rank r has it, otherwise 0.

    w: [k, d], rows r·k .. (r+1)·k   ids: [...]   z: [..., d].   Keeps which ids are its own.
    """
    k, d = w.shape
    xp, index = array_module(w.data), ids.reshape(-1) - r * k
    here = array_module(ids).flatnonzero((index >= 0) & (index < k))  # ids on a GPU are waited for
    own, index = beside(here, w.data), beside(index[here], w.data)
    z = xp.zeros((ids.size, d), w.dtype)
    z[own] = w.data[index]

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> tuple[Array]:
        return (sum_to_table(index, dz.reshape(-1, d)[own], k),)

    return record(z.reshape(*ids.shape, d), (w,), vjp)


# -- heads ------------------------------------------------------------------------------------


class ShardedQKV(GroupedQKV):
    """`GroupedQKV` of the own heads. f comes once, before both products.

    If there are fewer groups than ranks, several ranks need the keys and values of one. They are
    few: every rank holds them all, and computes those that its heads look at.
    """

    def __init__(self, init: Init, d: int, heads: int, groups: int, shards: Shards) -> None:
        p, self.groups, self.c = shards.group.size, groups, d // heads
        shards.check(init, "heads", heads)
        if groups % p and p % groups:
            raise UsageError(
                f"{init.path}: {groups} heads of keys and {p} ranks: one number must divide the "
                "other, so that the heads of a rank look at whole heads of keys."
            )
        self.name, self.shards, self.shared = init.path, shards, p > groups
        self.q = ColumnLinear(init / "q", d, d, shards)
        o = 2 * groups * self.c
        if self.shared:
            self.kv = SharedLinear(init / "kv", d, o)
        else:
            self.kv = ColumnLinear(init / "kv", d, o, shards, parts=2)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.shards.enter(x, self.name)
        q = linear(x, self.q.weight, self.q.bias)
        kv = linear(x, *self._keys_and_values())
        for z in (q, kv):
            label(z, SHARDED, self.name, self.shards.group, FEATURES)
        return split_heads(q, kv, self.c)

    def _keys_and_values(self) -> tuple[Tensor, Tensor]:
        w, b = self.kv.weight, self.kv.bias
        assert b is not None
        if not self.shared:
            return w, b
        group = self.shards.group
        at = group.rank * self.groups // group.size
        w = w.reshape(-1, 2, self.groups, self.c)[:, :, at].reshape(-1, 2 * self.c)
        return w, b.reshape(2, self.groups, self.c)[:, at].reshape(2 * self.c)


class SharedLinear(Linear):
    """A linear layer that every rank holds, and uses for a part of the work."""

    layout: Mapping[str, Any] = BOTH


# -- all of them ------------------------------------------------------------------------------


class ShardedOutput(Output):
    """Logits [..., k] of the own classes of a vocabulary."""

    def __init__(self, classes: int, shards: Shards) -> None:
        self.classes, self.group, self.sequence = classes, shards.group, shards.sequence

    def loss(self, logits: Tensor, targets: Array, **options: Any) -> Tensor:
        expect(logits, (SHARDED,), "the loss of shards", "output", self.group, FEATURES)
        return vocab_parallel_cross_entropy(logits, targets, self.group, self.classes, **options)

    def whole(self, logits: Tensor) -> Tensor:
        """All logits on all ranks: for evaluation, where they are looked at."""
        return gather_features(logits, self.group)[..., : self.classes]


class TensorKit(Kit):
    """The layers of a model that the ranks of a group share."""

    def __init__(self, group: Group, sequence: bool = False, overlap: bool = False) -> None:
        """sequence, overlap: see `Shards`."""
        self.shards, self.group, self.sequence = Shards(group, sequence, overlap), group, sequence

    def column(self, init: Init, i: int, o: int, std: float = STD) -> Linear:
        return ColumnLinear(init, i, o, self.shards, std)

    def row(self, init: Init, i: int, o: int, std: float = STD) -> Linear:
        return RowLinear(init, i, o, self.shards, std)

    def gathered(self, init: Init, i: int, o: int, std: float = STD) -> Linear:
        return ColumnLinear(init, i, o, self.shards, std, gather=True)

    def classes(self, init: Init, i: int, o: int, std: float = STD) -> Linear:
        return ColumnLinear(init, i, o, self.shards, std, pad=True)

    def entry(self, init: Init, i: int, o: int, std: float = STD) -> Linear:
        if self.sequence:
            return SequenceEntry(init, i, o, std, self.group)
        return Linear(init, i, o, std=std)

    def qkv(self, init: Init, d: int, heads: int) -> Linear:
        self.shards.check(init, "heads", heads)
        return ColumnLinear(init, d, 3 * d, self.shards, parts=3)

    def grouped(self, init: Init, d: int, heads: int, groups: int) -> GroupedQKV:
        return ShardedQKV(init, d, heads, groups, self.shards)

    def table(self, init: Init, n: int, d: int) -> Embedding:
        return VocabParallelEmbedding(init, n, d, self.shards)

    def positions(self, init: Init, n: int, d: int, std: float = STD) -> Positions:
        if self.sequence:
            return SequencePositions(init, n, d, std, self.group)
        return Positions(init, n, d, std)

    def norm(self, init: Init, d: int) -> LayerNorm:
        return SequenceNorm(init, d) if self.sequence else LayerNorm(init, d)

    def dropout(self, init: Init, p: float) -> Dropout:
        return SequenceDropout(init, p, self.group) if self.sequence else Dropout(init, p)

    def mean(self, x: Tensor) -> Tensor:
        own = x.mean(axis=1)
        if not self.sequence:
            return own
        own = label(own * (1 / self.group.size), PARTIAL, "mean", self.group)
        return label(sum_over_shards(own, self.group), REPLICATED, "mean", self.group)

    def output(self, classes: int) -> Output:
        return ShardedOutput(classes, self.shards)
