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

from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.nn import Module


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
            self.group.all_reduce(parameter.grad, op="mean", out=parameter.grad)
