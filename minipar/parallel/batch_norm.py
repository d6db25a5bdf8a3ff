r"""Synchronised batch norm: the batch that is normalised is that of all ranks.

    rank 0:  rows 0..7     [n, Σ x, Σ x²]  \               /  mean, variance  ─►  z of rows 0..7
                                             all_reduce
    rank 1:  rows 8..15    [n, Σ x, Σ x²]  /               \  mean, variance  ─►  z of rows 8..15

Without it each rank normalises its own rows by their own moments. That is cheaper, and often done,
but it is another model than that of one rank with the whole batch, and with few rows a rank a worse
one. With it the ranks compute exactly what one rank would, also with uneven rows, and their running
moments agree to the last bit.

Cost per layer and step: two all_reduces, forward [n, Σ x, Σ x²], backward [Σ dz, Σ dz · h], of
2·c + 1 and 2·c numbers of float64. They are small, so what counts is their latency.
Ranks must make the same calls in the same order, as with any collective. The loss of a rank is a
mean over its rows, and `sync_gradients(rows)` weights by them, as everywhere: backward expects it
(ops/batch_norm.py). Where a loss counts something else, such as tokens of which rows have unequal
numbers, the ranks need equally many rows.
"""

from __future__ import annotations

from minipar.comm.group import Group
from minipar.nn import BatchNorm, Module


def synchronise(model: Module, group: Group) -> None:
    """From now on every BatchNorm of model takes the rows of all ranks of group as one batch."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.total = group.all_reduce
