r"""Data parallel, the naive form: every rank has the whole model and a part of the batch.

    rank 0:  rows 0..7   forward  backward  \                 / optimizer step
                                              mean gradient                       the same weights
    rank 1:  rows 8..15  forward  backward  /                 \ optimizer step

The loss is a mean over the batch. If all ranks have equally many rows, the mean of their gradients
is the gradient of the whole batch; so after the same optimizer step the replicas still agree, to
the last bit, because all_reduce gives all of them the same bits.

Left out on purpose: buckets, overlap with backward, and uneven batches.
Cost per step: one all_reduce per parameter: 2(p-1) messages each, and 2(p-1)/p of the gradient
bytes out of each rank in all.  Paper: Li et al. 2020, section 3.2.1.
"""

from __future__ import annotations

import numpy as np

from minipar.array import array_module
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.nn import Module
from minipar.sparse import RowGradient


class DataParallel:
    """Keeps the replicas of `model` on all ranks of `group` equal."""

    def __init__(self, model: Module, group: Group) -> None:
        """Gives all replicas the weights of rank 0 (collective: all ranks call this)."""
        self.model, self.group = model, group
        for parameter in model.parameters():
            parameter.data[...] = group.broadcast(parameter.data)

    def sync_gradients(self) -> None:
        """Replace each gradient by its mean over the ranks; call it between backward and step.

        Raises: UsageError if a parameter has no gradient.
        """
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                raise UsageError(
                    f"rank {self.group.rank}: {name} has no gradient, so the ranks cannot average "
                    "it. Use it in the loss, freeze it (requires_grad=False), or call backward() "
                    "first."
                )
            if isinstance(parameter.grad, RowGradient):
                parameter.grad = mean_of_rows(parameter.grad, self.group)
            else:
                self.group.all_reduce(parameter.grad, op="mean", out=parameter.grad)


def mean_of_rows(g: RowGradient, group: Group) -> RowGradient:
    """The mean over the ranks of gradients that have other rows on each, the same bits on all.

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
    total = RowGradient.of(all_ids[mine], all_rows[mine], g.shape)
    total.rows /= group.size
    return total
