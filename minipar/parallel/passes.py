"""Forward and backward of a step, on a model that is whole on this rank.

    part 0    forward   backward  \
    part 1    forward   backward    gradients add up; sync_gradients comes after the last one
    part 2    forward   backward  /

The rows of a rank may be cut into micro-batches that go one after another: this needs memory for
the activations of one of them only. A model that is cut over several ranks has passes of its own
(pipeline.py); the training loop does not know which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np

from minipar.array import Array, is_array
from minipar.parallel.strategy import Strategy
from minipar.random import Draw
from minipar.spans import hold, span
from minipar.tensor import Tensor, no_grad

MEASURED = 3  # numbers that add up over batches
Measure = Callable[[Tensor, Array], Array]  # of a whole output, and y: MEASURED numbers
Loss = Callable[[Any, Any], Tensor]  # of what the model gives, and y: a mean over the rows


class Part(NamedTuple):
    """A micro-batch."""

    x: Any
    y: Any
    draw: Draw | None  # says where its rows stand in the global batch; None: evaluation
    share: float = 1.0  # how much its loss counts: its rows (or tokens) by those of the batch


class Passes(Protocol):
    """How gradients come about."""

    def train(self, parts: Sequence[Part]) -> float:
        """Forward and backward of all parts: adds to the gradients; Σ share · loss."""

    def measure(self, batches: Iterable[tuple[Any, Array]], of: Measure) -> Array:
        """Σ of(output, y) over the batches, in evaluation, on every rank."""


class OneByOne:
    """All of the model is here: one part after another."""

    def __init__(self, model: Callable[..., Tensor], strategy: Strategy, loss: Loss) -> None:
        self.model, self.strategy, self.loss = model, strategy, loss

    def train(self, parts: Sequence[Part]) -> float:
        losses = []
        hold("buffers", [(part.x, part.y) for part in parts])
        for micro, part in enumerate(parts):
            with nullcontext() if part is parts[-1] else self.strategy.no_sync():
                with span("forward", micro=micro):
                    loss = self.loss(self.model(part.x, part.draw), part.y)
                with span("backward", micro=micro):
                    (loss if part.share == 1 else loss * part.share).backward()
            losses.append(loss.data)
        # a GPU is waited for here, when it has got all of its work
        return sum((float(loss) * part.share for loss, part in zip(losses, parts)), 0.0)

    def measure(self, batches: Iterable[tuple[Any, Array]], of: Measure) -> Array:
        total = np.zeros(MEASURED)
        with self.strategy.whole() as model, no_grad():
            for x, y in batches:
                total += of(model(x), y)
        return total


def as_input(x: Any, dtype: str, xp: Any = np) -> Any:
    """x of a data set as a model takes it: numbers as tensors of dtype, ids as they are.

    xp: the array module of the model's weights. Ids stay in host memory: the op that takes them
    checks their range there, where it need not wait for a GPU.
    """
    if isinstance(x, tuple):
        return tuple(as_input(part, dtype, xp) for part in x)
    numbers = is_array(x) and x.dtype.kind == "f"
    return Tensor(xp.asarray(as_numbers(x, dtype))) if numbers else x


def as_numbers(y: Array, dtype: str) -> Array:
    """y of a data set in dtype; integers as they are."""
    return y.astype(dtype, copy=False) if y.dtype.kind == "f" else y
