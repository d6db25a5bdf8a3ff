"""The small training run on which pipelines are held against one rank.

A GPT in float64: its token table stands on the first stage and on the last, dropout falls on rows
of the whole batch, and the micro-batches are not all of one size. One rank takes the batch at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minipar.array import Array
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.models import GPT
from minipar.ops import cross_entropy
from minipar.optim import clip_grad_norm
from minipar.parallel.pipeline_strategy import PipelineParallel, union
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.stages import balanced
from minipar.parallel.strategy import MakeOptimizer
from minipar.random import Draw, Init
from minipar.testing.strategies import PATIENCE_S, Difference, worst
from minipar.testing.training import (
    STEPS,
    adamw,
    gradients_of,
    momentum,
    outcome,
    set_lr,
)

VOCAB, POSITIONS, ROWS = 7, 6, 13
CHUNKS = 2  # of an interleaved schedule


class Case(NamedTuple):
    name: str
    make_optimizer: MakeOptimizer
    max_norm: float = math.inf
    recompute: bool = False


CASES = (Case("momentum", momentum), Case("adamw, clipped, recomputed", adamw, 0.2, True))


def gpt() -> GPT:
    """Of 8 pieces, as many as 4 stages of 2 chunks need."""
    return GPT(Init(0, np.float64), VOCAB, POSITIONS, layers=6, d=8, heads=2, dropout=0.25)


def batch(step: int) -> tuple[Array, Array, Draw]:
    ids = np.random.default_rng(step).integers(0, VOCAB, (ROWS, POSITIONS + 1))
    return ids[:, :-1], ids[:, 1:], Draw(0, step, range(ROWS))


def train_alone(case: Case) -> dict[str, Array]:
    """What one rank comes to."""
    model = gpt()
    optimizer, norms, losses = case.make_optimizer(model.named_parameters()), [], []
    for step in range(STEPS):
        x, y, draw = batch(step)
        model.zero_grad()
        loss = cross_entropy(model(x, draw), y)
        loss.backward()
        losses.append(loss.item())
        norms.append(clip_grad_norm(model.parameters(), case.max_norm))
        gradients = gradients_of(model)
        set_lr(optimizer, step)
        optimizer.step()
    found = outcome(model, optimizer.state_dict(), gradients, norms)
    return {**found, "losses": np.array(losses)}


def train(group: Group, schedule: str, case: Case) -> dict[str, Array]:
    """The same on the stages of a pipeline, complete on each of them."""
    model, chunks = gpt(), CHUNKS if schedule == "interleaved" else 1
    cuts = balanced([1.0] * len(model.pieces()), group.size * chunks)
    pipeline = Pipeline(model, group, cross_entropy, schedule, cuts, case.recompute)
    strategy, norms, losses = PipelineParallel(pipeline, case.make_optimizer), [], []
    for step in range(STEPS):
        strategy.zero_grad()
        losses.append(pipeline.train(micro_batches(*batch(step), 2 * group.size)))
        strategy.sync_gradients()
        norms.append(strategy.clip(case.max_norm))
        gradients = union(gradients_of(pipeline.stage), group)
        set_lr(strategy.optimizer, step)
        strategy.step()
    state = strategy.state_dict()
    with strategy.whole() as whole:
        return {**outcome(whole, state, gradients, norms), "losses": np.array(losses)}


def train_all(group: Group, schedule: str, cases: Sequence[Case]) -> list[dict[str, Array]]:
    """All cases, one after the other."""
    return [train(group, schedule, case) for case in cases]


def difference(
    p: int, backend: str, schedule: str = "1f1b", cases: Sequence[Case] = CASES
) -> Difference:
    """How far p stages are from one rank, in all cases.  Raises: what the ranks raise."""
    everything = run(train_all, p, args=(schedule, cases), backend=backend, timeout_s=PATIENCE_S)
    return worst(cases, everything, lambda case: [train_alone(case)] * p)
