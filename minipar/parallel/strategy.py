"""What the training loop asks of a way of sharing the work; one loop serves all.

    strategy.zero_grad()
    strategy.announce(rows)             only some need it: those that send during backward
    with strategy.no_sync():            all but the last of the micro-batches
        loss.backward()
    loss.backward()
    strategy.sync_gradients(rows)       the mean over all rows of all ranks
    strategy.clip(max_norm)
    strategy.step()

    with strategy.whole() as model:     to read, save, load, or evaluate all of the weights
        ...
    with strategy.held() as held:       what this rank has of them, for checkpoints
        ...

Every call is collective: all ranks make it, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from minipar.array import Array
from minipar.optim import Optimizer
from minipar.parallel.held import Held
from minipar.tensor import Tensor

MakeOptimizer = Callable[[Iterable[tuple[str, Tensor]]], Optimizer]


class Strategy(Protocol):
    """Constructed from (model, group, make_optimizer, ...); gives all replicas rank 0's weights."""

    optimizer: Any  # has lr, which is set before each step

    def zero_grad(self) -> None: ...

    def announce(self, rows: float) -> None:
        """Say before backward how many rows it will be over on this rank, up to sync_gradients."""

    def no_sync(self) -> AbstractContextManager[None]:
        """Backward inside adds gradients up on this rank, and sends nothing."""

    def sync_gradients(self, rows: float = 1.0) -> None:
        """Make the gradients the mean over all rows; rows: how many this rank's loss was over."""

    def clip(self, max_norm: float) -> float:
        """The norm of the complete mean gradient, before it is shrunk to at most max_norm."""

    def step(self) -> None:
        """The optimizer's step, and what has to be sent after it."""

    def whole(self) -> AbstractContextManager[Any]:
        """The model with all its weights, the same on every rank; what is changed inside counts."""

    def held(self) -> AbstractContextManager[list[Held]]:
        """What this rank holds of weights and state, alive; what is changed inside counts.

        Who changes it does so on all ranks alike, and sets `optimizer.steps`.
        """

    def state_dict(self) -> dict[str, Array]:
        """The complete state of the optimizer, named as `Optimizer.state_dict`, on every rank."""

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, in any layout."""
