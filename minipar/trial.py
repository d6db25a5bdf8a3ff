"""A row or two through the model before ranks start: can it be cut as asked, what does it keep?

Done in the launcher, which has built the model anyway. Under --tp the ranks of one replica are
threads that share a row, since what each of them keeps depends on all layers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.config import Config
from minipar.errors import ShapeMismatch, UsageError
from minipar.nn import Module
from minipar.parallel.activations import Kept, kept_by_parts, of_a_row
from minipar.parallel.mixed import MixedPrecision
from minipar.parallel.passes import Loss, Part, as_input, as_numbers
from minipar.parallel.stages import balanced, bytes_of, pieces_of, timed
from minipar.parallel.tensor_layers import TensorKit
from minipar.random import Draw
from minipar.recipes import build_model, find
from minipar.strategies import chunks_of, make_optimizer

PATIENCE_S = 0.1  # for finding out how long a row takes


class Trial(NamedTuple):
    """Of each part of the model (pp · chunks of them), for one row."""

    kept: list[Kept]
    seconds: list[float]  # forward and backward of the whole part, as one rank has it
    update_s: float  # the optimizer's step, of all weights


def cuts_of(config: Config, model: Module) -> list[int]:
    """Where the pieces of the model are cut, if they are by bytes."""
    if config.pp == 1:
        return [0, 1]
    return balanced(bytes_of(pieces_of(model)), config.pp * chunks_of(config))


def tried(config: Config, model: Any, train: Any) -> Trial:
    """model: as one rank has it, with its weights; its gradients are not left as they were.

    train: the training data.  Raises: UsageError if it cannot be cut as asked.
    """
    c, loss = config, find(config.model).task.loss
    rounded(c, model)
    if c.tp > 1:
        kept = run(_shared, c.tp, args=(c, train))[0]
    else:
        kept = _kept(c, model, train, loss)
    if c.precision != "float32" or c.device != "cpu":  # then it says nothing of the ranks
        return Trial(kept, [0.0] * len(kept), 0.0)
    seconds = _seconds(c, model, train, loss)
    return Trial(kept, seconds, _update(c, model))


def rounded(c: Config, model: Module) -> None:
    """Let the model compute in 16 bits if ranks will."""
    if c.precision != "float32":
        MixedPrecision(model, c.precision)


def _shared(group: Group, c: Config, train: Any) -> list[Kept]:
    model: Any = build_model(c, train, TensorKit(group, c.sequence_parallel))
    rounded(c, model)
    try:
        return _kept(c, model, train, model.output.loss)
    except ShapeMismatch as error:  # of positions, which only the data show
        raise UsageError(f"--tp {c.tp}: {error}") from None


def _kept(c: Config, model: Module, train: Any, loss: Loss) -> list[Kept]:
    one, two = (
        kept_by_parts(_parts(c, model), _rows(c, train, min(n, len(train))), loss) for n in (1, 2)
    )
    return one if len(train) < 2 else of_a_row(one, two)


def _parts(c: Config, model: Module) -> list[Sequence[Module]]:
    pieces = [model] if c.pp == 1 else pieces_of(model)
    return [pieces[start:stop] for start, stop in pairwise(cuts_of(c, model))]


def _rows(c: Config, train: Any, n: int) -> Part:
    x, y = train.batch(np.arange(n))
    draw = Draw(c.seed, 0, range(n))
    return Part(as_input(x, c.computes_in), as_numbers(y, c.dtype), draw, 1.0)


def _seconds(c: Config, model: Module, train: Any, loss: Loss) -> list[float]:
    """Of a row, by part: from as many rows as a micro-batch has, if that does not take long."""
    micro, best, spent = max(1, c.batch // c.places // c.micros), math.inf, 0.0
    rows = 1
    found: Any = None
    while spent < PATIENCE_S:
        begun = time.perf_counter()
        times = timed([p for part in _parts(c, model) for p in part], _rows(c, train, rows), loss)
        took = time.perf_counter() - begun
        spent += took
        if rows < micro and took < PATIENCE_S / 4:
            rows = min(micro, 4 * rows)
            continue
        if times.sum() / rows < best:
            best, found = times.sum() / rows, times / rows
        if spent + took > PATIENCE_S:
            break
    return [float(found[a:b].sum()) for a, b in pairwise(cuts_of(c, model))]


def _update(c: Config, model: Module) -> float:
    """A step of the optimizer, with the gradients that are there."""
    trained = [(n, x) for n, x in model.named_parameters() if x.grad is not None]
    optimizer = make_optimizer(c)(trained)
    optimizer.step()
    begun = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - begun
