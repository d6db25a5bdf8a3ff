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
from minipar.parallel.flat import nothing
from minipar.parallel.reducer import Reducer
from minipar.parallel.slices import (
    Flat,
    Named,
    Owned,
    Slice,
    give_all_the_weights_of_rank_0,
    trainable,
)
from minipar.parallel.strategy import MakeOptimizer
from minipar.tensor import Tensor, record


class Unit:
    """Some parameters that come and go together."""

    def __init__(self, named: Named, group: Group) -> None:
        self.group, self.pinned = group, False
        flat = Flat(named, group.size)
        self.parameters = flat.parameters
        whole = flat.zeros()
        flat.fill(whole)
        own = whole[group.rank].copy()
        self.slice = Slice(flat, group.rank, own, array_module(own).zeros_like(own))
        self.left: set[str] = set()  # whose gradients are not final
        self._whole: Array | None = None
        self._coming: tuple[Array, Any] | None = None  # and the handle of the call
        for name, x in flat.parameters.items():
            x.when_final(partial(self._final, name))
        self.drop()

    @property
    def presence(self) -> str:
        """'#' the parameters are here, '+' on their way, '.' only a slice of them is here."""
        return "#" if self._whole is not None else "+" if self._coming is not None else "."

    def fetch(self) -> None:
        """Begin to gather."""
        if self._whole is None and self._coming is None:
            whole = self.slice.flat.zeros()
            self._coming = whole, self.group.all_gather(self.slice.data, out=whole, async_op=True)

    def gather(self) -> None:
        """Have the parameters here."""
        if self._whole is None:
            self.fetch()
            self._whole, self._coming = self._arrived(), None
            for name, x in self.parameters.items():
                x.data = self.slice.flat.view(self._whole, name)

    def drop(self) -> None:
        """Keep the slice only; shapes stay."""
        if self.pinned:
            return
        if self._coming is not None:
            self._arrived()
        self._whole = self._coming = None
        self.left.clear()
        for x in self.parameters.values():
            x.data = nothing(x.data)

    def _arrived(self) -> Array:
        assert self._coming is not None
        return self._coming[1].wait()

    def take_back(self) -> None:
        """Let the slice be what the whole parameters are now."""
        assert self._whole is not None
        self.slice.data[...] = self._whole[self.group.rank]

    def _final(self, name: str, x: Tensor) -> None:
        self.left.discard(name)
        if not self.left:
            self.drop()


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
        *parts, rest = split_parameters(model, modules)
        made = [(m, Unit(part, group)) for m, part in zip(modules, parts) if part]
        self.layers = [unit for _, unit in made]
        self.rest = Unit(rest, group) if rest else None
        self.units = self.layers[::-1]  # as backward completes them
        if self.rest is not None:
            self.units.append(self.rest)
        last_first = [unit.slice for unit in self.units]
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
        """Change the slices; nothing is sent before somebody needs them."""
        self._drop_all()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Array]:
        return self.owned.state_dict()

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        self.owned.load_state_dict(flat)

    @contextmanager
    def whole(self) -> Iterator[Module]:
        """The model with all its weights; what is changed inside, on all ranks alike, counts."""
        for unit in self.units:
            unit.gather()
            unit.pinned = True
        try:
            yield self.model
        finally:
            for unit in self.units:
                unit.take_back()
                unit.pinned = False
                unit.drop()

    # -- around the calls of modules ----------------------------------------------------------

    def _layer(self, n: int, call: Callable[..., Any]) -> Any:
        """A unit's call, in forward."""
        self.layers[n].gather()
        self._fetch(n + 1)
        z = call()
        self.layers[n].drop()
        return before_backward(z, partial(self._begin_backward, self.layers[n], n - 1))

    def _model(self, call: Callable[..., Any]) -> Any:
        """The model's call, in forward: the rest stays until its gradients are final."""
        if self.rest is not None:
            self.rest.gather()
            self.rest.left.clear()
        self._fetch(0)
        z = call()
        for unit in self.layers:
            unit.drop()  # also one that was fetched, but not called
        if self.rest is not None and not _goes_back(z):
            self.rest.drop()
        return before_backward(z, partial(self._begin_backward, self.rest, len(self.layers) - 1))

    def _begin_backward(self, unit: Unit | None, next_one: int) -> None:
        if unit is not None:
            unit.gather()
            unit.left = unit.left or set(unit.parameters)  # of several outputs, the first counts
        self._fetch(next_one)

    def _fetch(self, n: int) -> None:
        if 0 <= n < len(self.layers):
            self.layers[n].fetch()

    def _drop_all(self) -> None:
        for unit in self.units:
            unit.drop()


def listed(model: Module) -> list[Module]:
    """The modules that stand in lists of the model; of nested ones the outermost."""
    found: list[Module] = []

    def look(parts: Any, in_list: bool) -> None:
        for part in parts:
            if isinstance(part, list | tuple):
                look(part, True)
            elif isinstance(part, Module) and in_list:
                found.append(part)
            elif isinstance(part, Module):
                look(vars(part).values(), False)

    look(vars(model).values(), False)
    return list(dict.fromkeys(found))


def split_parameters(model: Module, units: Sequence[Module]) -> list[list[tuple[str, Tensor]]]:
    """The trainable parameters of each unit alone, and at the end the rest."""
    owners: dict[int, set[int]] = {}
    numbers = {id(module): n for n, module in enumerate(units)}

    def look(part: Any, owner: int) -> None:
        if isinstance(part, Tensor):
            owners.setdefault(id(part), set()).add(owner)
        elif isinstance(part, Module):
            owner = numbers.get(id(part), owner)
            for inner in vars(part).values():
                look(inner, owner)
        elif isinstance(part, list | tuple):
            for inner in part:
                look(inner, owner)

    look(model, len(units))
    parts: list[list[tuple[str, Tensor]]] = [[] for _ in range(len(units) + 1)]
    for name, x in trainable(model):
        of = owners[id(x)]
        parts[of.pop() if len(of) == 1 else -1].append((name, x))
    return parts


def call_through(module: Module, around: Callable[[Callable[[], Any]], Any]) -> None:
    """From now on module(...) is around(call), where call() is what module(...) was."""
    kind = type(module)

    def call(self: Module, *args: Any, **kwargs: Any) -> Any:
        return around(lambda: kind.__call__(self, *args, **kwargs))

    module.__class__ = type(kind.__name__, (kind,), {"__call__": call})


def before_backward(z: Any, do: Callable[[], None]) -> Any:
    """z, whose gradient calls do() before it goes on; also for a tuple."""
    if isinstance(z, tuple):
        return tuple(before_backward(part, do) for part in z)
    if not isinstance(z, Tensor):
        return z

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        do()
        return (dz,)

    return record(z.data, (z,), vjp)


def _goes_back(z: Any) -> bool:
    return any(x.requires_grad for x in (z if isinstance(z, tuple) else (z,)))
