r"""The central form of data parallel: one rank updates, the others get its weights.

    rank 0:  backward  ◄─┐ mean gradient     step  ─┐ weights
    rank 1:  backward  ──┤                          ├─►
    rank 2:  backward  ──┘                          └─►

So it was done before all-reduce, and so does a parameter server with one server and no hurry. Only
rank 0 has an optimizer, and its state. The result is that of `DataParallel`; what differs is who
sends: through rank 0 pass the bytes of all.

Cost per step: a reduce of the gradients and a broadcast of the weights. With algorithm="naive",
(p-1)·n bytes come to rank 0 and (p-1)·n leave it, where in a ring 2(p-1)/p · n leave each rank.
Paper: Li et al. 2014, with one server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minipar.array import Array, array_module
from minipar.comm.algorithms import Choice
from minipar.comm.group import Group
from minipar.nn import Module
from minipar.optim import clip_grad_norm
from minipar.parallel.flat import pack, unpack
from minipar.parallel.replicas import Replicas
from minipar.parallel.shares import dense_gradient, exchange
from minipar.parallel.strategy import MakeOptimizer


class Central(Replicas):
    """Rank 0 has the optimizer; the others send it gradients and take its weights."""

    def __init__(
        self,
        model: Module,
        group: Group,
        make_optimizer: MakeOptimizer,
        *,
        algorithm: Choice = None,
    ) -> None:
        """algorithm: of the reduce and the broadcast; "naive" sends all straight to rank 0.

        Raises: ReplicasDiffer if the parameters are not the same ones, in the same order.
        """
        super().__init__(model, group)
        self.algorithm, self._make = algorithm, make_optimizer
        self.optimizer = make_optimizer(self.trained if group.rank == 0 else ())

    def _reduce(self, rows: float) -> None:
        """Rank 0 gets the mean over all rows, the others let go of their gradients.

        A sparse gradient becomes dense.
        """
        share = float(exchange(self.trained, rows, self.group).shares[self.group.rank])
        mine = pack([dense_gradient(x) for _, x in self.trained])
        mine *= share
        total = self.group.reduce(mine, algorithm=self.algorithm)
        self.zero_grad()
        if self.group.rank == 0:
            grads = [array_module(x.data).empty_like(x.data) for _, x in self.trained]
            unpack(total, grads)
            for (_, x), g in zip(self.trained, grads):
                x.grad = g

    def clip(self, max_norm: float) -> float:
        """Rank 0 has the gradient, and tells the others its norm."""
        norm = clip_grad_norm([x for _, x in self.trained], max_norm)  # 0 where there is none
        return float(self.group.broadcast(np.array(norm)))

    def step(self) -> None:
        """The optimizer's step on rank 0; then all take its weights."""
        weights = [x.data for _, x in self.trained]
        if self.group.rank == 0:
            self.optimizer.step()
        unpack(self.group.broadcast(pack(weights), algorithm=self.algorithm), weights)

    def state_dict(self) -> dict[str, Array]:
        """The state that rank 0 has, on every rank."""
        own = self.optimizer
        if self.group.rank:
            own = self._make(self.trained)  # for the names and shapes of what comes
        return {name: self.group.broadcast(a) for name, a in own.state_dict().items()}

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        if self.group.rank == 0:
            self.optimizer.load_state_dict(flat)
