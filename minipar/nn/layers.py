"""The layers that hold parameters. Each draws its weights from an Init, by name.

`layer(x, draw)` is training, where dropout drops; without a draw it is evaluation.
"""

from __future__ import annotations

from minipar.array import Array
from minipar.nn.module import Module
from minipar.ops import dropout, embedding, layer_norm, linear, rms_norm
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


class Embedding(Module):
    """z = weight[ids].   ids: integers [...]   weight: [n, d]   z: [..., d].

    sparse: the gradient holds only the rows that were picked (`minipar.sparse`).
    """

    def __init__(self, init: Init, n: int, d: int, std: float = STD, sparse: bool = False) -> None:
        self.weight = Tensor(init.normal("weight", (n, d), std), requires_grad=True)
        self.sparse = sparse

    def __call__(self, ids: Tensor | Array) -> Tensor:
        return embedding(self.weight, ids, self.sparse)


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
        return dropout(x, draw.keep(self.name, x.shape, self.p), self.p)
