r"""Stage 3 of ZeRO: each rank keeps a slice of every layer, and whole layers only while they work.

    forward    gather 0 │ layer 0       │ layer 1       │ layer 2
                        │ gather 1 ...  │ gather 2 ...  │
                        └── drop 1..0 ──┴─ drop 1 ──────┴─ drop 2
    backward   gather 2 │ layer 2       │ layer 1       │ layer 0
                        │ gather 1 ...  │ gather 0 ...  │
                                        └ reduce, drop 2┴ reduce, drop 1 ...

A *unit* is what is gathered at once: a module that stands in a list in the model (GPT.blocks). The
next one comes while this one computes. What belongs to no unit or to several (embeddings, tied
weights) is one more unit, the rest, which is there from the model's call to the end of backward.

How it gets between the layers without changing them: the module's class becomes a subclass with a
__call__ that gathers, calls and drops. Ops keep tensors and not arrays, so in the meantime .data
may be something else: an array of the right shape, without memory, that is nan everywhere. In
backward, an op that does nothing but gather stands at the end of each unit, so it comes first; and
when the gradients of a unit are final, nothing needs its weights any more (`Tensor.when_final`).

All ranks have to call the same units in the same order, in evaluation, too. A unit gives a tensor,
or a tuple of them; whatever else leaves it must not need its weights in backward.
Cost per step: 3(p-1)/p of the parameter bytes out of each rank, 2(p-1)/p of the rest.
Memory: `cost.zero3_kept`, and at the most `cost.zero3_passing` more.
Paper: Rajbhandari et al. 2020, sections 5.3 and 7.2.2. FSDP (Zhao et al. 2023) is the same idea.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.nn import Module
from minipar.parallel.held import Held, weights
from minipar.parallel.parcel import leaves_of, mapped
from minipar.parallel.reducer import Reducer
from minipar.parallel.slices import Owned, give_all_the_weights_of_rank_0, trainable
from minipar.parallel.strategy import MakeOptimizer
from minipar.parallel.units import Unit, listed, neighbours, split_parameters
from minipar.tensor import Tensor, record


class Zero3:
    """Stage 3: each rank keeps a slice of everything.  A `Strategy`.

    Outside of a call of the model its weights are nan: read, save or load them inside `whole()`.
    Rows and `no_sync` are as in `Zero2`.
    """

    def __init__(
        self,
        model: Module,
        group: Group,
        make_optimizer: MakeOptimizer,
        units: Sequence[Module] | None = None,
    ) -> None:
        """units: modules in the order of their calls; None: those in lists.  Collective."""
        give_all_the_weights_of_rank_0(model, group)
        self.model, self.group = model, group
        modules = list(listed(model) if units is None else units)
        late = getattr(model, "late", ())
        kept = [(name, x) for name, x in trainable(model) if name in late]
        *parts, rest = (
            [(name, x) for name, x in part if name not in late]
            for part in split_parameters(model, modules)
        )
        made = [(m, Unit(part, group)) for m, part in zip(modules, parts) if part]
        self.layers = [unit for _, unit in made]
        self.rest, self.kept = (Unit(some, group) if some else None for some in (rest, kept))
        self.units = [u for u in (*self.layers[::-1], self.rest, self.kept) if u is not None]
        self.follows = neighbours(model, [module for module, _ in made])
        if self.kept is not None:
            self.kept.gather()
            self.kept.pinned = True
        last_first = [unit.slice for unit in self.units]  # as backward completes them
        self.reducer = Reducer(last_first, group)
        self.owned = Owned(last_first, group, make_optimizer)
        self.optimizer = self.owned.optimizer
        for n, (module, _) in enumerate(made):
            call_through(module, partial(self._layer, n))
        call_through(model, self._model)

    def zero_grad(self) -> None:
        self.reducer.zero_grad()

    def no_sync(self) -> AbstractContextManager[None]:
        return self.reducer.no_sync()

    def announce(self, rows: float) -> None:
        """As `Zero2.announce`."""
        self.reducer.announce(rows)

    def sync_gradients(self, rows: float = 1.0) -> None:
        """As `Zero2.sync_gradients`."""
        self._drop_all()
        self.reducer.finish(rows)

    def clip(self, max_norm: float) -> float:
        return self.owned.clip(max_norm)

    def step(self) -> None:
        """Change the slices; nothing is sent before somebody needs them, except what is kept."""
        self._drop_all()
        self.optimizer.step()
        if self.kept is not None:
            self.kept.renew()

    @contextmanager
    def held(self) -> Iterator[list[Held]]:
        """The slices, and the whole of what is not trained; or all weights, if they are lent."""
        named = list(self.model.named_parameters())
        if any(unit.lent for unit in self.units):  # masters, of mixed precision
            yield [*weights(named), *self.owned.held()]
            return
        self._drop_all()
        frozen = [(name, x) for name, x in named if not x.requires_grad]
        yield [*weights(frozen), *self.owned.held_weights(), *self.owned.held()]
        if self.kept is not None:
            self.kept.renew()

    def state_dict(self) -> dict[str, Array]:
        return self.owned.state_dict()

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        self.owned.load_state_dict(flat)

    @contextmanager
    def whole(self) -> Iterator[Module]:
        """The model with all its weights; what is changed inside, on all ranks alike, counts."""
        units = [unit for unit in self.units if not unit.lent]
        for unit in units:
            unit.gather()
            unit.pinned = True
        try:
            yield self.model
        finally:
            for unit in units:
                unit.take_back()
                unit.pinned = unit is self.kept
                unit.drop()

    # -- around the calls of modules ----------------------------------------------------------

    def _layer(self, n: int, call: Callable[..., Any]) -> Any:
        """A unit's call, in forward."""
        before, behind = self.follows[n]
        self.layers[n].gather()
        self._fetch(behind)
        z = call()
        self.layers[n].drop()
        return before_backward(z, partial(self._begin_backward, self.layers[n], before))

    def _model(self, call: Callable[..., Any]) -> Any:
        """The model's call, in forward: the rest stays until its gradients are final."""
        if self.rest is not None:
            self.rest.gather()
            self.rest.left.clear()
        first, last = self.follows[-1]
        self._fetch(first)
        z = call()
        for unit in self.layers:
            unit.drop()  # also one that was fetched, but not called
        if self.rest is not None and not _goes_back(z):
            self.rest.drop()
        return before_backward(z, partial(self._begin_backward, self.rest, last))

    def _begin_backward(self, unit: Unit | None, next_one: int | None) -> None:
        if unit is not None:
            unit.gather()
            unit.left = unit.left or set(unit.parameters)  # of several outputs, the first counts
        self._fetch(next_one)

    def _fetch(self, n: int | None) -> None:
        if n is not None:
            self.layers[n].fetch()

    def _drop_all(self) -> None:
        for unit in self.units:
            unit.drop()


def call_through(module: Module, around: Callable[[Callable[[], Any]], Any]) -> None:
    """From now on module(...) is around(call), where call() is what module(...) was."""
    kind = type(module)

    def call(self: Module, *args: Any, **kwargs: Any) -> Any:
        return around(lambda: kind.__call__(self, *args, **kwargs))

    module.__class__ = type(kind.__name__, (kind,), {"__call__": call})


def before_backward(z: Any, do: Callable[[], None]) -> Any:
    """z, a tensor or a tree of them, whose gradient calls do() before it goes on."""
    return mapped(lambda x: _before_backward(x, do) if _goes_back(x) else x, z)


def _before_backward(x: Tensor, do: Callable[[], None]) -> Tensor:
    """x itself. Where backward puts off what serves only weights, this half comes by here as well:

    for it there is a weight of no meaning, a number that x does not depend on.
    """
    zeros = partial(array_module(x.data).zeros, (), x.dtype)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        do()
        return dz if wanted[0] else None, zeros() if wanted[1] else None

    return record(x.data, (x, Tensor(zeros(), requires_grad=True)), vjp)


def _goes_back(z: Any) -> bool:
    return any(isinstance(x, Tensor) and x.requires_grad for x in leaves_of(z))
