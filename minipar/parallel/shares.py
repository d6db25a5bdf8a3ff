"""How much each rank's gradients count, and which of them are there.

The loss of a rank is a mean over its rows, and so is its gradient g. The gradient of the mean over
all rows is not the mean of these means, unless all ranks have equally many rows:

    Σ rows_r · g_r / Σ rows_r   =   Σ share_r · g_r        share_r = rows_r / Σ rows

So each rank multiplies by its share, and then all_reduce adds up. A rank without rows has a share
of 0 and takes part with zeros. A parameter that the rows of a rank do not use has no gradient
there, which is a gradient of zeros; one that no rank uses is most likely a mistake.

Letters: x a parameter, g its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.sparse import RowGradient
from minipar.tensor import Tensor

NONE, ROWS, DENSE = 0, 1, 2  # what a rank has for a parameter


class Shares(NamedTuple):
    """The same on every rank."""

    shares: np.ndarray  # float64 [p], of sum 1
    dense: np.ndarray  # bool [parameters]: whether the sum over the ranks is dense


def exchange(named: Sequence[tuple[str, Tensor]], rows: float, group: Group) -> Shares:
    """Collective: tell each other how many rows each had, and which gradients it has.

    Cost:   an all_gather of (1 + parameters) · 8 bytes from each rank.
    Raises: UsageError on all ranks, if there are no rows, or a parameter has no gradient anywhere.
    """
    kinds = [_kind(x.grad) for _, x in named]
    table = group.all_gather(np.array([rows, *kinds], np.float64))  # [p, 1 + parameters]
    best = table[:, 1:].max(axis=0, initial=NONE)
    shares = shares_of(table[:, 0])
    check_used(named, best, group)
    return Shares(shares, best == DENSE)


def shares_of(rows_of: np.ndarray) -> np.ndarray:
    """Each rank's part of the rows.  Raises: UsageError, if there are none."""
    total = rows_of.sum()
    if not (total > 0 and rows_of.min() >= 0):
        raise UsageError(
            f"sync_gradients: the ranks have {rows_of.tolist()} rows; a mean needs some, on one "
            "rank at least."
        )
    return rows_of / total


def check_used(named: Sequence[tuple[str, Tensor]], found: np.ndarray, group: Group) -> None:
    """Raises: UsageError for parameters that found nothing: 0 is that no rank has a gradient."""
    if found.all():
        return
    unused = [name for (name, _), here in zip(named, found) if not here]
    raise UsageError(
        f"rank {group.rank}: {unused[0]} has no gradient on any rank"
        + (f", nor have {', '.join(unused[1:4])}" if unused[1:] else "")
        + ". Use it in the loss, freeze it (requires_grad=False), or call backward() first."
    )


def dense_gradient(x: Tensor) -> Array:
    """x's gradient as an array; zeros if it has none."""
    if isinstance(x.grad, RowGradient):
        return x.grad.dense()
    return array_module(x.data).zeros(x.shape, x.dtype) if x.grad is None else x.grad


def row_gradient(x: Tensor) -> RowGradient:
    """x's gradient, which is sparse; without rows if it has none."""
    if x.grad is not None:
        assert isinstance(x.grad, RowGradient)
        return x.grad
    xp = array_module(x.data)
    return RowGradient(xp.zeros(0, np.int64), xp.zeros((0, x.shape[1]), x.dtype), x.shape)


def sum_of_rows(g: RowGradient, group: Group) -> RowGradient:
    """The sum over the ranks of gradients that have other rows on each, the same bits on all.

    No all_reduce can add them up, for their rows do not lie alike. Each rank gets the rows of all,
    padded to the longest, and adds up those with the same id.
    Cost: three all_gathers; with k rows of d numbers on the fullest rank, (p-1) · (8 + k · (bytes
    of an id + d · bytes of a number)) out of each rank. Dense it would be 2(p-1)/p · n · d numbers.
    """
    xp = array_module(g.rows)
    counts = group.all_gather(np.array(len(g.ids)))
    longest = int(counts.max())
    ids = xp.zeros(longest, g.ids.dtype)
    rows = xp.zeros((longest, g.shape[1]), g.dtype)
    ids[: len(g.ids)], rows[: len(g.ids)] = g.ids, g.rows
    all_ids, all_rows = group.all_gather(ids), group.all_gather(rows)
    mine = xp.arange(longest) < xp.asarray(counts)[:, None]  # [p, longest]: not padding
    return RowGradient.of(all_ids[mine], all_rows[mine], g.shape)


def _kind(g: Any) -> int:
    return NONE if g is None else ROWS if isinstance(g, RowGradient) else DENSE
