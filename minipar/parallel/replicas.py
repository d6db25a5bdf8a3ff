"""What all forms of data parallel with whole replicas have in common; how they differ is theirs.

    data.py          naive         one all_reduce for each gradient, after backward
    bucketed.py      bucketed      one for each bucket of gradients, after backward
    overlapped.py    overlapped    the same, each as soon as its bucket is full

Each rank has the whole model, the whole gradient after the reduction, and the whole optimizer. So
clipping and the step need no message: all ranks do the same with the same bits.

Buffers (tensors that are not trained, such as the moving moments of batch norm) are given out by
rank 0 at the start. If batch norm is synchronised (batch_norm.py) they stay equal by themselves. If
it is not, each rank's follow its own rows, and those of rank 0 count: `sync_buffers` gives them to
all, and a checkpoint that rank 0 writes has them. (torch does the same, before each step.)
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from minipar.array import Array
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.nn import Module
from minipar.optim import clip_grad_norm
from minipar.parallel.agreement import check_same_bits, check_same_form
from minipar.parallel.held import Held, state, weights
from minipar.parallel.strategy import MakeOptimizer


class Replicas:
    """Keeps the replicas of `model` on all ranks of `group` equal; see `strategy.Strategy`."""

    def __init__(
        self,
        model: Module,
        group: Group,
        make_optimizer: MakeOptimizer | None = None,
        *,
        check_every: int = 0,
    ) -> None:
        """Gives all replicas the weights of rank 0 (collective: all ranks call this).

        check_every: compare the weights of all ranks, bit for bit, every so many steps: in
        sync_gradients, so it is the weights after the step before that are compared.
        Raises: ReplicasDiffer if the parameters are not the same ones, in the same order.
        """
        check_same_form(model, group)
        self.model, self.group = model, group
        for parameter in model.parameters():
            parameter.data[...] = group.broadcast(parameter.data)
        self.trained = [(n, x) for n, x in model.named_parameters() if x.requires_grad]
        self.optimizer: Any = make_optimizer and make_optimizer(self.trained)
        self.steps, self._check_every = 0, check_every

    def zero_grad(self) -> None:
        for _, x in self.trained:
            x.grad = None

    def announce(self, rows: float) -> None:
        """Nothing: what each rank's rows count is exchanged in sync_gradients."""

    def no_sync(self) -> AbstractContextManager[None]:
        """Backward inside only adds up; so it does outside, where it is sync_gradients that sends.

        The overlapped form sends in backward, and so needs to be told.
        """
        return nullcontext()

    def sync_gradients(self, rows: float = 1.0) -> None:
        """Replace each gradient by its mean over all rows; between backward and step.

        rows: how many rows (or tokens) the loss of this rank was a mean over; 0 if it had none.
        Raises: UsageError if a parameter has no gradient on any rank; ReplicasDiffer.
        """
        self._reduce(rows)
        if self._check_every and self.steps % self._check_every == 0:
            check_same_bits(self.trained, self.steps, self.group)
        self.steps += 1

    def _reduce(self, rows: float) -> None:
        raise NotImplementedError

    def clip(self, max_norm: float) -> float:
        return clip_grad_norm([x for _, x in self.trained], max_norm)

    def step(self) -> None:
        if self.optimizer is None:
            raise UsageError(
                f"{type(self).__name__} was made without make_optimizer, so it has no step."
            )
        self.optimizer.step()

    def sync_buffers(self) -> None:
        """Give all ranks rank 0's moments and other tensors that are not trained; collective."""
        for x in self.model.parameters():
            if not x.requires_grad:
                x.data[...] = self.group.broadcast(x.data)

    def whole(self) -> AbstractContextManager[Module]:
        """The model as it is: each replica is whole."""
        return nullcontext(self.model)

    def held(self) -> AbstractContextManager[list[Held]]:
        named = self.model.named_parameters()
        return nullcontext([*weights(named), *state(self.optimizer)])

    def state_dict(self) -> dict[str, Array]:
        return self.optimizer.state_dict()

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(flat)
