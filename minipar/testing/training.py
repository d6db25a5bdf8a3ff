"""The small training run on which strategies are compared: a net with everything that goes wrong.

    up ─ batch norm ─ middle ─ dropout ─ layers ─ middle ─ fixed ─ down        (tanh after each)

`middle` is used twice (a shared weight is final only after its second use), `layers` is a list (of
what stage 3 of ZeRO gathers at once), the weight of `fixed` is frozen, biases and gains are
vectors, and the batch may be cut unevenly. Everything is float64
and a pure function of the step and the row, so that runs on other numbers of ranks can be compared
to the last digits. (`up` has no bias: before a batch norm its true gradient is 0, and Adam would
make whole steps of what is rounded differently.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array
from minipar.comm.group import Group
from minipar.comm.wiring import even_cuts
from minipar.nn import BatchNorm, Dropout, Linear, Module
from minipar.ops import cross_entropy, tanh
from minipar.optim import SGD, AdamW, Optimizer, clip_grad_norm
from minipar.parallel.batch_norm import synchronise
from minipar.parallel.strategy import MakeOptimizer, Strategy
from minipar.random import Draw, Init
from minipar.tensor import Tensor

STEPS, WIDTH, CLASSES = 10, 8, 3
MakeStrategy = Callable[[Module, Group, MakeOptimizer], Strategy]


class Net(Module):
    """x: [b, 8] -> [b, 3]"""

    def __init__(self, batch_norm: bool) -> None:
        init = Init(0, np.float64)
        self.up = Linear(init / "up", WIDTH, WIDTH, std=0.5, bias=False)
        self.norm = BatchNorm(init / "norm", WIDTH) if batch_norm else None
        self.middle = Linear(init / "middle", WIDTH, WIDTH, std=0.5)
        self.layers = [Linear(init / f"layers.{n}", WIDTH, WIDTH, std=0.5) for n in range(2)]
        self.again = self.middle
        self.fixed = Linear(init / "fixed", WIDTH, WIDTH, std=0.5)
        self.fixed.weight.requires_grad = False
        self.dropout = Dropout(init / "dropout", 0.25)
        self.down = Linear(init / "down", WIDTH, CLASSES, std=0.5)

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        h = self.up(x)
        return self.head(h if self.norm is None else self.norm(h, draw), draw)

    def head(self, h: Tensor, draw: Draw | None) -> Tensor:
        """What comes after the batch norm."""
        h = self.dropout(tanh(self.middle(tanh(h))), draw)
        for layer in [*self.layers, self.again, self.fixed]:
            h = tanh(layer(h))
        return self.down(h)


class Case(NamedTuple):
    """A way to train the net. The optimizer is made by a function that processes can import."""

    name: str
    make_optimizer: MakeOptimizer
    rows: int  # in the global batch
    batch_norm: bool = True
    micros: int = 1  # backwards of a step; batch norm would see other batches
    max_norm: float = math.inf

    def rows_of(self, rank: int, ranks: int) -> range:
        cuts = even_cuts(self.rows, ranks)
        return range(cuts[rank], cuts[rank + 1])


def momentum(named: Iterable[tuple[str, Tensor]]) -> Optimizer:
    return SGD(named, lr=0.1, momentum=0.9)


def adamw(named: Iterable[tuple[str, Tensor]]) -> Optimizer:
    return AdamW(named, lr=0.01, weight_decay=0.1)


CASES = (
    Case("momentum", momentum, 12),
    Case("uneven rows, adamw, clipped", adamw, 13, max_norm=0.2),
    Case("uneven rows, accumulated", momentum, 13, batch_norm=False, micros=2),
)


def batch(step: int, rows: range) -> tuple[Tensor, Array, Draw]:
    """These rows of the global batch of a step: x, targets, and the Draw that belongs to them."""
    dice = np.random.default_rng(step)
    x, y = dice.normal(size=(100, WIDTH)), dice.integers(0, CLASSES, 100)
    part = slice(rows.start, rows.stop)
    return Tensor(x[part]), y[part], Draw(0, step, rows)


def accumulate(
    model: Module,
    case: Case,
    step: int,
    rows: range,
    no_sync: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """The gradient of the mean loss over the rows, in case.micros backwards."""
    cuts = even_cuts(len(rows), case.micros)
    for n in range(case.micros):
        part = rows[cuts[n] : cuts[n + 1]]
        x, y, draw = batch(step, part)
        with no_sync() if n < case.micros - 1 else nullcontext():
            (cross_entropy(model(x, draw), y) * (len(part) / len(rows))).backward()


def set_lr(optimizer: Any, step: int) -> None:
    """Another rate in each step, as a schedule would."""
    optimizer.lr *= 0.95 if step else 1.0


def train(group: Group, make: MakeStrategy, case: Case, synchronised: bool) -> dict[str, Array]:
    """Train by a strategy, on this rank's rows; what came of it.

    synchronised: whether batch norm goes over the rows of all ranks.
    """
    model = Net(case.batch_norm)
    if group.rank:
        for x in model.parameters():
            x.data += group.rank  # rank 0's weights count
    strategy = make(model, group, case.make_optimizer)
    if synchronised:
        synchronise(model, group)
    rows, norms = case.rows_of(group.rank, group.size), []
    for step in range(STEPS):
        strategy.zero_grad()
        strategy.announce(len(rows))
        accumulate(model, case, step, rows, strategy.no_sync)
        strategy.sync_gradients(len(rows))
        norms.append(strategy.clip(case.max_norm))
        gradients = complete_gradients(strategy, model, group)
        set_lr(strategy.optimizer, step)
        strategy.step()
    state = strategy.state_dict()  # local SGD averages here
    with strategy.whole():
        return outcome(model, state, gradients, norms)


def complete_gradients(strategy: Any, model: Module, group: Group) -> dict[str, Array]:
    """The mean gradient by name, put together where each rank holds a slice of it."""
    if not hasattr(strategy, "owned"):
        return gradients_of(model)
    found: dict[str, Array] = {}
    for s in strategy.owned.slices:
        everything = group.all_gather(s.grad)
        found |= {name: s.flat.view(everything, name).copy() for name in s.flat.parameters}
    return found


def train_alone(case: Case) -> dict[str, Array]:
    """The same on one rank, without any strategy."""
    model = Net(case.batch_norm)
    optimizer, norms = case.make_optimizer(model.named_parameters()), []
    for step in range(STEPS):
        model.zero_grad()
        accumulate(model, case, step, range(case.rows))
        norms.append(clip_grad_norm(model.parameters(), case.max_norm))
        gradients = gradients_of(model)
        set_lr(optimizer, step)
        optimizer.step()
    return outcome(model, optimizer.state_dict(), gradients, norms)


def gradients_of(model: Module) -> dict[str, Array]:
    """Copies of the gradients that this rank has."""
    return {n: x.grad.copy() for n, x in model.named_parameters() if x.grad is not None}


def outcome(
    model: Any, state: dict[str, Array], gradients: dict[str, Array], norms: Sequence[float]
) -> dict[str, Array]:
    """Everything that is compared, by name."""
    return {
        **{f"weight {name}": a for name, a in model.state_dict().items()},
        **{f"state {name}": a for name, a in state.items()},
        **{f"gradient {name}": a for name, a in gradients.items()},
        "norm of the gradient": np.array(norms),
    }


def largest_difference(
    found: Sequence[dict[str, Array]], wanted: Sequence[dict[str, Array]]
) -> tuple[float, str]:
    """The largest difference of any number on any rank, and in which array it is.

    found, wanted: outcomes by rank. A gradient may be missing on a rank, nothing else. What is
    missing, has another shape, or is not a number differs by infinity.
    """
    worst = 0.0, ""
    for rank, (mine, right) in enumerate(zip(found, wanted)):
        for name, array in right.items():
            if name not in mine and name.startswith("gradient "):
                continue
            other = mine.get(name)
            apart = math.nan
            if other is not None and other.shape == array.shape:
                apart = float(np.abs(other - array).max())
            if math.isnan(apart):
                apart = math.inf
            if apart > worst[0]:
                worst = apart, f"{name} on rank {rank}"
    return worst


def train_all(group: Group, make: MakeStrategy, synchronised: bool) -> list[dict[str, Array]]:
    """All cases, one after the other."""
    return [train(group, make, case, synchronised and case.batch_norm) for case in CASES]
