r"""What one server holds: its keys' values, their versions, and the optimizer.

Answers to pulls are sent from the very arrays that updates write to, without a copy, and may be
under way for long if the worker computes. Who would write to such an array goes on with a copy, and
leaves the old one to the answer. So no pull ever sees half of an update, and no update waits.

    pull answered   ──► w ············ (still being sent)
    push applied        w ──copy──► w'   -= lr · g          later pulls see w'

Letters: x a parameter's slice, g its gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from minipar.array import Array
from minipar.comm.transport import Pending
from minipar.errors import PeerLost, ShapeMismatch, UsageError
from minipar.nn import Module
from minipar.optim import squared_norm
from minipar.parallel.parameter_server.keys import Shard
from minipar.parallel.strategy import MakeOptimizer
from minipar.sparse import RowGradient, values
from minipar.tensor import Tensor

Gradients = Mapping[int, Any]  # by the key's place in the shard


class Store:
    """The values of a shard."""

    def __init__(self, shard: Shard, model: Module, make_optimizer: MakeOptimizer) -> None:
        """model: gives the first values; copied, so that the rest of it can go."""
        parameters = dict(model.named_parameters())
        self.shard = shard
        self.tensors = [
            Tensor(key.of(parameters[key.parameter].data).copy(), requires_grad=True)
            for key in shard.keys
        ]
        self.optimizer = make_optimizer((k.name, x) for k, x in zip(shard.keys, self.tensors))
        self.versions = np.zeros(len(shard.keys), np.int64)  # updates that touched the key
        self.updates = 0
        self._sending: dict[int, list[Pending]] = {}

    def lend(self, key: int, pending: Pending) -> None:
        """The array of that key is being sent."""
        self._sending.setdefault(key, []).append(pending)

    def update(self, gradients: Gradients, lr: float, factor: float = 1.0) -> None:
        """One step of the optimizer, with the keys that have a gradient; those are changed."""
        if factor != 1.0:
            for g in gradients.values():
                shrink(g, factor)
        self._own(gradients)
        for i, x in enumerate(self.tensors):
            x.grad = gradients.get(i)
        self.optimizer.lr = lr
        self.optimizer.step()
        for x in self.tensors:
            x.grad = None
        self._count(gradients)

    def put(self, new: Gradients) -> None:
        """Replace values: of dense keys, and of the given rows of tables."""
        self._own(new)
        for i, value in new.items():
            if isinstance(value, RowGradient):
                self.tensors[i].data[value.ids] = value.rows
            else:
                self.tensors[i].data[...] = value
        self._count(new)

    def state(self) -> list[Array]:
        """Copies of the optimizer's arrays: key by key, slot by slot."""
        return [
            self.optimizer.state[key.name][slot].copy()
            for key in self.shard.keys
            for slot in self.optimizer.slots
        ]

    def put_state(self, arrays: list[Array], steps: int) -> None:
        """Take over what `state` gave.  Raises: UsageError, ShapeMismatch; then nothing changes."""
        places = [
            self.optimizer.state[key.name][slot]
            for key in self.shard.keys
            for slot in self.optimizer.slots
        ]
        if len(arrays) != len(places):
            raise UsageError(
                f"optimizer state: {len(arrays)} arrays came, {len(places)} are kept. It must "
                "come from the same optimizer and model."
            )
        for new, old in zip(arrays, places):
            if new.shape != old.shape:
                raise ShapeMismatch(f"optimizer state: {new.shape} came for {old.shape}.")
        for new, old in zip(arrays, places):
            old[...] = new
        self.optimizer.steps = steps

    def _own(self, keys: Iterable[int]) -> None:
        """Make the arrays of these keys ones that nobody is being sent."""
        for i in keys:
            if not all(map(_done, self._sending.pop(i, ()))):
                self.tensors[i].data = self.tensors[i].data.copy()

    def _count(self, keys: Iterable[int]) -> None:
        self.updates += 1
        self.versions[list(keys)] += 1


def _done(pending: Pending) -> bool:
    with suppress(PeerLost):  # nobody will take it any more
        return pending.done()
    return True


def shrink(g: Any, factor: float) -> None:
    """g *= factor, in place."""
    x = values(g)
    x *= factor


def mean(pushes: Iterable[tuple[float, Gradients]]) -> dict[int, Any]:
    """The mean over all rows of some gradients, each of which is a mean over its own rows.

    pushes: (rows, gradients), which are overwritten; added up in this order. A key that a push does
    not have counts as zero there, and one that none has is not in the result.
    """
    pushes = list(pushes)
    total = sum(rows for rows, _ in pushes)
    found: dict[int, Any] = {}
    for rows, gradients in pushes:
        for i, g in gradients.items():
            if rows != total:
                shrink(g, rows / total)
            if i in found:
                found[i] += g
            else:
                found[i] = g
    return found


def norm_squared(gradients: Gradients) -> float:
    """Σ g² over all of them."""
    return float(sum(squared_norm(values(g)) for g in gradients.values()))
