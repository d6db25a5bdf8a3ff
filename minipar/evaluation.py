"""How good the model is, as one number that no layout changes.

    batches    [ 8 rows | 8 rows | 8 rows | 3 rows ]        the last one is what is left
                                          ^ over two replicas: 1 row, and 2 rows

A loss is a mean over the tokens of what it was given. The mean of such means would give the rows of
a short batch, or of a short part of it, more weight than others. So each counts with its tokens:

    loss = Σ tokens · loss / Σ tokens          over all parts, of all ranks

The validation data are always walked through in the same order, at most so many batches of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minipar.array import Array
from minipar.config import Config
from minipar.data import Sampler
from minipar.parallel.passes import Passes, as_input, as_numbers
from minipar.recipes import Task
from minipar.tensor import Tensor


def evaluate(c: Config, task: Task, data: Any, member: Any) -> dict[str, float]:
    """val_loss, and val_accuracy: the share of tokens (images) that the model is right about.

    data: the validation data, of which c.eval_batches batches are seen, or all if it has fewer.
    member: this rank's part of the run (`strategies.Member`).  Collective, over those who step
    together.
    """
    passes: Passes = member.passes
    batches = _parts(c, data, member.xp, *member.part_of_validation)
    total = passes.measure(batches, lambda output, y: _sums(task, output, y))
    loss, right, tokens = (float(x) for x in member.mean(total))
    found = {"val_loss": loss / tokens}
    return found if task.hits is None else {**found, "val_accuracy": right / tokens}


def _parts(c: Config, data: Any, xp: Any, rank: int, ranks: int) -> Iterator[tuple[Any, Array]]:
    """This rank's part of each batch, where it has one."""
    sampler = Sampler(len(data), c.batch, c.seed, rest="short")
    for n in range(min(c.eval_batches, sampler.steps_per_epoch)):
        if sampler.rows(rank, ranks, n):
            x, y = data.batch(sampler.indices(n, rank, ranks))
            yield as_input(x, c.computes_in, xp), as_numbers(y, c.dtype)


def _sums(task: Task, output: Tensor, y: Array) -> Array:
    """Over the tokens of y: of the loss, of those that are right, and how many they are."""
    right = 0.0 if task.hits is None else float(task.hits(output.data, y).sum())
    return np.array([task.loss(output, y).item() * y.size, right, y.size])
