r"""Local SGD: the ranks train apart and meet every k steps, to average their weights.

    rank 0:  step step step ─┐           ┌─ step step step ─┐
                             ├─ average ─┤                  ├─ average ...
    rank 1:  step step step ─┘           └─ step step step ─┘

A step costs no communication, so the bytes of data parallel are divided by k. The price: between
two meetings each replica follows its own rows, and the mean of where they went is not where one
model would have gone with all rows. For k = 1 and an optimizer that is linear in the gradient (SGD,
also with momentum) it is; otherwise this is another algorithm. Its definition is one process that
holds all replicas.

What is averaged: the trained weights, the running moments of batch norms, and the optimizer's state
(momentum, Adam's m and v), each weighted by the rows that a rank has seen since the last meeting.
So after a meeting the replicas agree in everything, and a checkpoint is complete. Averaging the
momentum is in Yu, Jin & Yang 2019; McMahan et al. 2017 begin anew with plain SGD instead.

With every=None the ranks never meet before `finish()`: the models are trained apart, and averaged
once (Zinkevich et al. 2010).

Cost: one all_reduce of n bytes, weights and state, at each meeting: 2(p-1)/p · n/k in a mean step.
Papers: McMahan et al. 2017, algorithm 1; Stich 2019.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from minipar.array import Array
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.nn import BatchNorm, Module
from minipar.parallel.flat import pack, unpack
from minipar.parallel.held import Held
from minipar.parallel.replicas import Replicas
from minipar.parallel.shares import exchange
from minipar.parallel.strategy import MakeOptimizer


class LocalSGD(Replicas):
    """Trains a replica on each rank, and averages them every so many steps."""

    def __init__(
        self,
        model: Module,
        group: Group,
        make_optimizer: MakeOptimizer,
        *,
        every: int | None = 8,
    ) -> None:
        """every: steps from one meeting to the next; None: only `finish()` is one.

        Raises: ReplicasDiffer if the parameters are not the same ones, in the same order.
        """
        if every is not None and every < 1:
            raise UsageError(f"local SGD averages every 1 or more steps, not every {every}.")
        super().__init__(model, group, make_optimizer)
        self.every, self._alone, self._rows = every, 0, 0.0  # steps and rows since the last meeting

    def sync_gradients(self, rows: float = 1.0) -> None:
        """Sends nothing: each rank follows the gradient of its own rows, which are counted."""
        self._rows += rows

    def step(self) -> None:
        """A step of this replica alone; the last of `every` ends in a meeting."""
        self.optimizer.step()
        self._alone += 1
        if self._alone == self.every:
            self.finish()

    def finish(self) -> None:
        """Meet now, if there was a step since the last time; collective.

        Call it at the end, and before the model is evaluated or saved.
        """
        if not self._alone:
            return
        arrays = self._differing()
        mine = pack(arrays)
        mine *= float(exchange((), self._rows, self.group).shares[self.group.rank])
        unpack(self.group.all_reduce(mine, out=mine), arrays)
        self._alone, self._rows = 0, 0.0

    def _differing(self) -> list[Array]:
        """Everything in which replicas may differ, in the same order on all ranks."""
        arrays = [x.data for _, x in self.trained]
        for module in self.model.modules():
            if isinstance(module, BatchNorm):
                arrays += [module.running_mean.data, module.running_var.data]
        return arrays + [a for state in self.optimizer.state.values() for a in state.values()]

    def whole(self) -> AbstractContextManager[Module]:
        """The mean of the replicas: the ranks meet first."""
        self.finish()
        return super().whole()

    def held(self) -> AbstractContextManager[list[Held]]:
        """After a meeting, when all have the same."""
        self.finish()
        return super().held()

    def state_dict(self) -> dict[str, Array]:
        """The optimizer's state, the same on every rank: to give it, the ranks meet first."""
        self.finish()
        return super().state_dict()
