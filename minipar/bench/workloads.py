"""What `bench train` trains: data, model, loss and optimizer of each workload, on minipar's side.

A workload is an entry of WORKLOADS. Its twin in PyTorch stands under the same `kind` in
torch_peer.TWINS: the same model and optimizer, fed with the same arrays. To add one, write
both entries; nothing else knows how many there are. The data is random: the time of a step does not
depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array
from minipar.models import GPT, MLP, ResNet
from minipar.nn import Linear, Module, Piece, chain
from minipar.ops import cross_entropy, relu
from minipar.optim import SGD, AdamW, Optimizer
from minipar.random import Draw, Init, uniform, words
from minipar.tensor import Tensor

Batch = tuple[Any, np.ndarray]  # x as the model takes it, and y


class Workload(NamedTuple):
    """model(Init(), **sizes)(x, draw) is trained on batch(step) = (x, y) with loss(logits, y)."""

    kind: str  # names the twin in torch_peer.TWINS
    model: Callable[..., Module]
    sizes: Mapping[str, Any]
    batch: Callable[[int], Batch]
    optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer]
    loss: Callable[[Tensor, np.ndarray], Tensor] = cross_entropy


class MiniparSteps:
    """A model and its optimizer; step(*batch(n)) trains on batch n and returns the loss."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.model = work.model(Init(), **work.sizes)
        self.optimizer = work.optimizer(self.model.named_parameters())

    def batch(self, n: int) -> Batch:
        return self.work.batch(n)

    def step(self, x: Any, y: np.ndarray) -> float:
        draw = Draw(0, self.optimizer.steps, range(len(y)))
        self.optimizer.zero_grad()
        loss = self.work.loss(self.model(x, draw), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()


# -- data -------------------------------------------------------------------------------------


def tokens(batch: int, block: int, vocab: int = 256) -> Callable[[int], Batch]:
    """step -> x and y [batch, block] of ids below vocab, y one position later."""

    def of_step(step: int) -> Batch:
        drawn = words(0, "bench", step, 0, batch * (block + 1)) % np.uint64(vocab)
        idx = drawn.astype(np.int64).reshape(batch, block + 1)
        return idx[:, :-1], idx[:, 1:]

    return of_step


def images(*shape: int, classes: int = 10) -> Callable[[int], Batch]:
    """step -> x float32 of that shape, about as large as normalised pixels, and y [shape[0]]."""

    def of_step(step: int) -> Batch:
        x = (uniform(0, "pixels", shape, step) * 4 - 2).astype(np.float32)
        y = words(0, "classes", step, 0, shape[0]) % np.uint64(classes)
        return x, y.astype(np.int64)

    return of_step


# -- models that are only here ----------------------------------------------------------------


class ReluMLP(Module):
    """x [b, sizes[0]] -> logits [b, sizes[-1]], with relu between the layers."""

    def __init__(self, init: Init, sizes: Sequence[int]) -> None:
        self.layers = [
            Linear(init / "layers" / n, i, o, std=(2 / i) ** 0.5)
            for n, (i, o) in enumerate(pairwise(sizes))
        ]

    def __call__(self, x: Array, draw: Draw | None = None) -> Tensor:
        return chain(self.pieces(), x, draw)

    def pieces(self) -> list[Piece]:
        first, *others = self.layers
        after = [Piece(partial(_after_relu, layer), layer) for layer in others]
        return [Piece(lambda x, draw: first(Tensor(x)), first), *after]


def _after_relu(layer: Linear, z: Tensor, draw: Draw | None) -> Tensor:
    return layer(relu(z))


# -- the workloads ----------------------------------------------------------------------------


def _gpt(d: int, heads: int, batch: int, block: int, layers: int = 4, vocab: int = 256) -> Workload:
    sizes = {"vocab": vocab, "block": block, "layers": layers, "d": d, "heads": heads}
    return Workload("gpt", GPT, sizes, tokens(batch, block, vocab), lambda p: AdamW(p, lr=1e-3))


WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        "gpt-256": _gpt(d=256, heads=8, batch=16, block=128),
        "gpt-128": _gpt(d=128, heads=4, batch=8, block=64),
        "mlp": Workload(
            "mlp",
            ReluMLP,
            {"sizes": (784, 512, 512, 512, 10)},
            images(128, 784),
            lambda p: SGD(p, lr=0.01, momentum=0.9),
        ),
        "shallow": Workload(  # ShallowSpeed's; 64 rows for each of two ranks are its batch of 128
            "shallow",
            ReluMLP,
            {"sizes": (784, 128, 127, 126, 125, 124, 123, 10)},
            images(64, 784),
            lambda p: SGD(p, lr=0.01),
        ),
        "cnn": Workload(  # ResNet-8
            "cnn",
            ResNet,
            {"classes": 10, "layers": (1, 1, 1), "width": 16},
            images(64, 32, 32, 3),
            lambda p: SGD(p, lr=0.05, momentum=0.9),
        ),
        "mlp-text": Workload(
            "mlp-text",
            MLP,
            {"vocab": 256, "context": 16, "d": 32, "hidden": (512, 512, 512)},
            tokens(batch=16, block=64),
            lambda p: AdamW(p, lr=1e-3),
        ),
    }
)

# What `bench train --device cuda` trains; the large one is GPT-2's smallest.
ON_DEVICE: Mapping[str, Workload] = MappingProxyType(
    {
        "gpt-124m": _gpt(d=768, heads=12, batch=16, block=1024, layers=12, vocab=50304),
        "gpt-256": WORKLOADS["gpt-256"],
    }
)
