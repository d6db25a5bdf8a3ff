"""Training a model whose layers are shared out: what the training loop asks for.

    model = GPT(..., kit=TensorKit(group))
    strategy = TensorParallel(model, group, make_optimizer)

All ranks of the group have the same rows, and get the same loss. What backward leaves is complete,
except for parameters that each rank has used for a part of the positions: those are added up.
Every rank updates its slices, and what is replicated, with the same gradient, everywhere.

Weights and state leave and enter in the shapes of one rank, whatever the number of ranks.

Data parallel comes inside: `data` makes a strategy over another group, of ranks that have the same
slices and other rows. It takes the mean over its ranks, and then this one adds up over its own.

With ZeRO inside, what a rank has of a layer is cut once more, over the ranks of `data`:

    a column layer [i, o]    on tp 0 its columns: dp 0 updates the first half of them, dp 1 the rest
    a norm [d]               on tp 0 and tp 1 alike: dp 0 the first half, dp 1 the rest

What tp ranks have of a parameter has one shape, so all of them cut alike. So the piece of what is
replicated is the same one on each, with the same gradient, and stays the same to the bit; a piece
of a gradient that is partial is added up as the whole would be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.nn import Module
from minipar.parallel.agreement import check_same_form
from minipar.parallel.held import Held, state, weights
from minipar.parallel.sharding import (
    Replicated,
    clip_sharded_norm,
    own_state,
    placed,
    sharding,
    sum_gradients,
    whole_state,
)
from minipar.parallel.strategy import MakeOptimizer, Strategy
from minipar.parallel.tensor_layers import ShardedOutput
from minipar.random import Draw
from minipar.tensor import Tensor

MakeReplicas = Callable[[Module, MakeOptimizer], Strategy]


class TensorParallel:
    """Trains a model that was built with a `TensorKit` of the same group.  A `Strategy`."""

    def __init__(
        self,
        model: Module,
        group: Group,
        make_optimizer: MakeOptimizer,
        data: MakeReplicas | None = None,
        over: Group | None = None,
    ) -> None:
        """Gives all ranks rank 0's replicated parameters; shards stay as drawn.  Collective.

        data: (model, make_optimizer) -> a data-parallel strategy over a group of its own.
        over: the ranks that hold all of the gradient between them. None: this group; with ZeRO as
        data its ranks belong to it as well, mesh.group("dp", "tp").
        Raises: ReplicasDiffer if the ranks have built other models; UsageError.
        """
        check_same_form(model, group)
        self.model, self.group, self.table = model, group, sharding(model)
        for name, x in model.named_parameters():
            if isinstance(self.table[name], Replicated):
                x.data[...] = group.broadcast(x.data)
        self.data = data and data(model, make_optimizer)
        if hasattr(self.data, "owned") and over is None:
            raise UsageError(
                "TensorParallel: with ZeRO inside, the ranks that share layers have no complete "
                'gradient among them; say who has: over=mesh.group("dp", "tp").'
            )
        self.over = group if over is None else over
        whole = ((n, x) for n, x in model.named_parameters() if x.requires_grad)
        self.optimizer: Any = self.data.optimizer if self.data else make_optimizer(whole)
        self.trained = list(self.optimizer.parameters.items())  # of ZeRO: the pieces of this rank
        self.steps = 0

    @property
    def sends_once(self) -> bool:
        """As of the data strategy."""
        return getattr(self.data, "sends_once", False)

    def zero_grad(self) -> None:
        if self.data:
            self.data.zero_grad()
        else:
            for _, x in self.trained:
                x.grad = None

    def announce(self, rows: float) -> None:
        if self.data:
            self.data.announce(rows)

    def no_sync(self) -> AbstractContextManager[None]:
        return self.data.no_sync() if self.data else nullcontext()

    def sync_gradients(self, rows: float = 1.0) -> None:
        """Complete the gradients; rows: as everywhere, and the same on all ranks of this group."""
        if self.data:
            self.data.sync_gradients(rows)
        sum_gradients(self.trained, self.table, self.group)
        self.steps += 1

    def clip(self, max_norm: float) -> float:
        return clip_sharded_norm(self.trained, self.table, self.group, max_norm, self.over)

    def step(self) -> None:
        if self.data:
            self.data.step()
        else:
            self.optimizer.step()

    @contextmanager
    def whole(self) -> Iterator[WholeModel]:
        """The model as one that is not cut; all its calls are collective."""
        with self.data.whole() if self.data else nullcontext():
            yield WholeModel(self.model, self.group)

    @contextmanager
    def held(self) -> Iterator[list[Held]]:
        """As slices of the whole arrays."""
        plain = nullcontext([*weights(self.model.named_parameters()), *state(self.optimizer)])
        with self.data.held() if self.data else plain as held:
            yield [placed(h, self.table, self.group) for h in held]

    def state_dict(self) -> dict[str, Array]:
        own = (self.data or self.optimizer).state_dict()
        return whole_state(own, self.table, self.group)

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        own = own_state(flat, self.model, self.group)
        (self.data or self.optimizer).load_state_dict(own)


class WholeModel:
    """Looks from outside like the model of one rank: logits, weights in and out. Not for training.

    Every call is collective. Other attributes are those of the model.
    """

    def __init__(self, model: Module, group: Group) -> None:
        self.model, self.group = model, group

    def __call__(self, x: Any, draw: Draw | None = None) -> Tensor:
        """The logits of all classes. Under sequence parallel ids [b, t] of any length t will do."""
        output = getattr(self.model, "output", None)
        if not isinstance(output, ShardedOutput):
            return self.model(x, draw)
        if not output.sequence:
            return output.whole(self.model(x, draw))
        t = x.shape[1]
        more = array_module(x).zeros((len(x), -t % self.group.size), x.dtype)
        padded = array_module(x).concatenate([x, more], axis=1)  # no position looks at later ones
        return output.whole(self.model(padded, draw))[:, :t]

    def state_dict(self) -> dict[str, Array]:
        """The weights of one rank, on all ranks."""
        return whole_state(self.model.state_dict(), sharding(self.model), self.group)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Take the weights of one rank.  Raises: as `Module.load_state_dict`."""
        self.model.load_state_dict(own_state(state, self.model, self.group), strict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)
