"""The layers that hold parameters. Each draws its weights from an Init, by name.

`layer(x, draw)` is training, where dropout drops; without a draw it is evaluation.

A model that many ranks may share asks a `Kit` for its layers, by the part that each plays. The one
here gives the layers of this file; parallel/tensor_layers.py has one whose layers hold slices.
"""

from __future__ import annotations

from typing import Any

from minipar.array import Array
from minipar.nn.module import Module
from minipar.ops import (
    cross_entropy,
    drawn_dropout,
    embedding,
    layer_norm,
    linear,
    linear_gelu,
    rms_norm,
)
from minipar.random import Draw, Init
from minipar.tensor import Tensor

STD = 0.02  # of initial weights, as in GPT-2


class Linear(Module):
    """z = x @ weight + bias.   x: [..., i]   weight: [i, o]   bias: [o]   z: [..., o]."""

    def __init__(self, init: Init, i: int, o: int, bias: bool = True, std: float = STD) -> None:
        self.weight = Tensor(init.normal("weight", (i, o), std), requires_grad=True)
        self.bias = Tensor(init.zeros("bias", (o,)), requires_grad=True) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """gelu(self(x)), as one op."""
        return linear_gelu(x, self.weight, self.bias)


class Embedding(Module):
    """z = weight[ids].   ids: integers [...]   weight: [n, d]   z: [..., d].

    sparse: the gradient holds only the rows that were picked (`minipar.sparse`).
    """

    def __init__(self, init: Init, n: int, d: int, std: float = STD, sparse: bool = False) -> None:
        self.weight = Tensor(init.normal("weight", (n, d), std), requires_grad=True)
        self.sparse = sparse

    def __call__(self, ids: Tensor | Array) -> Tensor:
        return embedding(self.weight, ids, self.sparse)

    def logits(self, x: Tensor) -> Tensor:
        """x @ weightᵀ: the table once more, as output weights (tied).   [..., d] -> [..., n]."""
        return linear(x, self.weight.T)


class Positions(Module):
    """z = x + a learned vector for each position.   x: [b, t, d], t <= n   weight: [n, d]."""

    def __init__(self, init: Init, n: int, d: int, std: float = STD) -> None:
        self.weight = Tensor(init.normal("weight", (n, d), std), requires_grad=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self.beginning(x, 0)

    def beginning(self, x: Tensor, first: int) -> Tensor:
        """The same for the positions first .. first + t."""
        return x + self.weight[first : first + x.shape[1]]


class LayerNorm(Module):
    """Each row of x with mean 0 and variance 1, then times weight plus bias.   x: [..., d]."""

    def __init__(self, init: Init, d: int) -> None:
        self.weight = Tensor(init.ones("weight", (d,)), requires_grad=True)
        self.bias = Tensor(init.zeros("bias", (d,)), requires_grad=True)

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias)


class RMSNorm(Module):
    """Each row of x with mean square 1, then times weight.   x: [..., d]."""

    def __init__(self, init: Init, d: int) -> None:
        self.weight = Tensor(init.ones("weight", (d,)), requires_grad=True)

    def __call__(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight)


class Dropout(Module):
    """Sets a share p of the elements to zero in training.   x: [rows of the batch, ...].

    The mask depends on this layer's name, which is where it stands in the model (`init.path`).
    """

    def __init__(self, init: Init, p: float) -> None:
        self.name, self.p = init.path, p

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        if draw is None or self.p == 0:
            return x
        return drawn_dropout(x, draw, self.name, self.p)


class GroupedQKV(Module):
    """The queries of all heads, and keys and values of fewer: groups of heads share them.

    x: [b, t, d] -> q [b, t, h, c], k and v [b, t, g, c]   (h heads in g groups, c = d / h).
    """

    def __init__(self, init: Init, d: int, heads: int, groups: int) -> None:
        self.c = d // heads
        self.q = Linear(init / "q", d, d)
        self.kv = Linear(init / "kv", d, 2 * groups * self.c)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return split_heads(self.q(x), self.kv(x), self.c)


def split_heads(q: Tensor, kv: Tensor, c: int) -> tuple[Tensor, Tensor, Tensor]:
    """[b, t, h·c] and [b, t, 2·g·c]   ->   q [b, t, h, c], k and v [b, t, g, c]."""
    b, t, _ = q.shape
    kv = kv.reshape(b, t, 2, -1, c)
    return q.reshape(b, t, -1, c), kv[:, :, 0], kv[:, :, 1]


class Output:
    """How the logits of a model lie: whole, here."""

    def loss(self, logits: Tensor, targets: Array, **options: Any) -> Tensor:
        """`cross_entropy`, with its options."""
        return cross_entropy(logits, targets, **options)

    def whole(self, logits: Tensor) -> Tensor:
        """The logits of all classes."""
        return logits


class Kit:
    """Layers by the part that they play in a model.   x: [b, t, features] everywhere.

    column      linear; its outputs are then used each by itself, and go into a `row`
    row         linear; takes what a column left
    gathered    linear; a column that no row follows
    entry       linear, of the model's input, which every rank has whole
    qkv         a column that gives the queries, keys and values of all heads, one behind the other
    grouped     the same with fewer heads of keys and values
    table       one vector for each token; its logits are output weights, too
    classes     linear; its outputs are logits
    positions, norm, dropout
                between the blocks, where each position is by itself
    mean        over the positions   [b, t, d] -> [b, d]
    output      what to do with the logits of `classes` and of a table
    """

    sequence = False  # whether each rank has a part of the positions between the blocks

    def column(self, init: Init, i: int, o: int, std: float = STD) -> Linear:
        return Linear(init, i, o, std=std)

    row = gathered = entry = classes = column

    def qkv(self, init: Init, d: int, heads: int) -> Linear:
        return Linear(init, d, 3 * d)

    def grouped(self, init: Init, d: int, heads: int, groups: int) -> GroupedQKV:
        return GroupedQKV(init, d, heads, groups)

    def table(self, init: Init, n: int, d: int) -> Embedding:
        return Embedding(init, n, d)

    def positions(self, init: Init, n: int, d: int, std: float = STD) -> Positions:
        return Positions(init, n, d, std)

    def norm(self, init: Init, d: int) -> LayerNorm:
        return LayerNorm(init, d)

    def dropout(self, init: Init, p: float) -> Dropout:
        return Dropout(init, p)

    def mean(self, x: Tensor) -> Tensor:
        return x.mean(axis=1)

    def output(self, classes: int) -> Output:
        return Output()


ONE_RANK = Kit()
