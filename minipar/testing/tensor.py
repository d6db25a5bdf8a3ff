"""The small training run on which tensor parallel is held against one rank.

A GPT in float64 with everything that goes wrong: a vocabulary that the ranks cannot share evenly,
tied output weights, biases that are not zero, dropout, ignored tokens, label smoothing, a norm that
is clipped, gradients that are accumulated. One rank is written here in plain steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.models import GPT
from minipar.nn import Module
from minipar.ops import cross_entropy
from minipar.optim import clip_grad_norm
from minipar.parallel.sharding import sharding, whole_state
from minipar.parallel.strategy import MakeOptimizer
from minipar.parallel.tensor_layers import TensorKit
from minipar.parallel.tensor_strategy import TensorParallel
from minipar.random import Draw, Init, normal
from minipar.tensor import Tensor
from minipar.testing.strategies import PATIENCE_S, Difference, worst
from minipar.testing.training import STEPS, adamw, gradients_of, momentum
from minipar.testing.training import outcome as outcome_of

VOCAB, POSITIONS, ROWS, IGNORED = 17, 24, 4, -1
OPTIONS: Mapping[str, Any] = MappingProxyType({"ignore_index": IGNORED, "label_smoothing": 0.1})
Loss = Callable[..., Tensor]


class Case(NamedTuple):
    name: str
    make_optimizer: MakeOptimizer
    max_norm: float = math.inf
    micros: int = 1


CASES = (Case("momentum", momentum), Case("adamw, clipped, accumulated", adamw, 0.2, 2))


def gpt(**options: Any) -> GPT:
    """24 heads, so that 1, 2, 3, 4, 6, 8, 12 or 24 ranks can have equally many."""
    init = Init(0, np.float64)
    return GPT(init, VOCAB, POSITIONS, layers=2, d=24, heads=24, dropout=0.25, **options)


def start() -> dict[str, Array]:
    """The weights from which all begin: no bias is zero, and no gain is one."""
    state = gpt().state_dict()
    return {name: a + 0.1 * normal(1, name, a.shape) for name, a in state.items()}


def batch(step: int) -> tuple[Array, Array]:
    """ids and targets [rows, positions]; some targets are ignored."""
    dice = np.random.default_rng(step)
    ids = dice.integers(0, VOCAB, size=(ROWS, POSITIONS + 1))
    targets = np.where(dice.random((ROWS, POSITIONS)) < 0.2, IGNORED, ids[:, 1:])
    return ids[:, :-1], targets


def accumulate(model: Module, loss: Loss, case: Case, step: int) -> None:
    """The gradient of the mean of the micro-batches."""
    ids, targets = batch(step)
    each = ROWS // case.micros
    for first in range(0, ROWS, each):
        rows = range(first, first + each)
        part = slice(first, first + each)
        logits = model(ids[part], Draw(0, step, rows))
        (loss(logits, targets[part], **OPTIONS) * (1 / case.micros)).backward()


def train_alone(case: Case) -> dict[str, Array]:
    """What one rank comes to."""
    model = gpt()
    model.load_state_dict(start())
    optimizer, norms = case.make_optimizer(model.named_parameters()), []
    for step in range(STEPS):
        model.zero_grad()
        accumulate(model, cross_entropy, case, step)
        norms.append(clip_grad_norm(model.parameters(), case.max_norm))
        gradients = gradients_of(model)
        optimizer.step()
    logits = model(batch(STEPS)[0][:, :5]).data  # a length that no number of ranks here divides
    return {**outcome_of(model, optimizer.state_dict(), gradients, norms), "logits": logits}


def train(group: Group, case: Case, sequence: bool, overlap: bool = False) -> dict[str, Array]:
    """The same by the ranks of a group together, complete on each of them."""
    model = gpt(kit=TensorKit(group, sequence, overlap))
    strategy = TensorParallel(model, group, case.make_optimizer)
    with strategy.whole() as whole:
        whole.load_state_dict(start())
    norms = []
    for step in range(STEPS):
        strategy.zero_grad()
        accumulate(model, model.output.loss, case, step)
        strategy.sync_gradients()
        norms.append(strategy.clip(case.max_norm))
        gradients = whole_state(gradients_of(model), sharding(model), group)
        strategy.step()
    state = strategy.state_dict()
    with strategy.whole() as whole:
        logits = whole(batch(STEPS)[0][:, :5]).data
        return {**outcome_of(whole, state, gradients, norms), "logits": logits}


def train_all(
    group: Group, cases: Sequence[Case], sequence: bool, overlap: bool
) -> list[dict[str, Array]]:
    """All cases, one after the other."""
    return [train(group, case, sequence, overlap) for case in cases]


def difference(
    p: int,
    backend: str,
    sequence: bool = False,
    overlap: bool = False,
    cases: Sequence[Case] = CASES,
) -> Difference:
    """How far p ranks are from one, in all cases.  Raises: what the ranks raise."""
    args = (cases, sequence, overlap)
    everything = run(train_all, p, args=args, backend=backend, timeout_s=PATIENCE_S)
    return worst(cases, everything, lambda case: [train_alone(case)] * p)
