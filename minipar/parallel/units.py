r"""What stage 3 of ZeRO gathers at once: the parameters of a layer, which come and go together.

    of a model    [ embedding | layers[0] | layers[1] | ... | head ]     a unit for each layer; the
                    rest                                      rest       rest of the model is one

A unit keeps a slice of its parameters, and all of them only while somebody needs them. Which
modules are units, and which of them follow each other, is found here; when they come and go is in
sharded_parameters.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.nn import Module
from minipar.parallel.flat import is_here, nothing
from minipar.parallel.slices import Flat, Named, Slice, trainable
from minipar.spans import hold
from minipar.tensor import Tensor


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
        hold("weights", own)
        hold("gradients", self.slice.grad)
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

    @property
    def lent(self) -> bool:
        """Whether somebody else has put whole weights here, who will take them away again."""
        return self._whole is None and all(is_here(x.data) for x in self.parameters.values())

    def fetch(self) -> None:
        """Begin to gather."""
        if self._whole is None and self._coming is None:
            whole = self.slice.flat.zeros()
            hold("buffers", whole)
            self._coming = whole, self.group.all_gather(self.slice.data, out=whole, async_op=True)

    def gather(self) -> None:
        """Have the parameters here."""
        if self._whole is None:
            self.fetch()
            self._whole, self._coming = self._arrived(), None
            for name, x in self.parameters.items():
                x.data = self.slice.flat.view(self._whole, name)

    def renew(self) -> None:
        """Gather again what is here, after a step."""
        assert self._whole is not None
        self.group.all_gather(self.slice.data, out=self._whole)

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


def neighbours(model: Module, layers: Sequence[Module]) -> list[tuple[int | None, int | None]]:
    """The layers that are called before and behind each; at the end the last and the first of all.

    A stage that is called chunk by chunk says so; nothing is behind the last layer of a chunk.
    """
    chunks = getattr(model, "chunks", [layers])
    of = {id(module): c for c, chunk in enumerate(chunks) for module in chunk}
    places = [of.get(id(module)) for module in layers]
    joined = [a == b for a, b in pairwise(places)]
    found = [
        (n - 1 if n and joined[n - 1] else None, n + 1 if n < len(joined) and joined[n] else None)
        for n in range(len(layers))
    ]
    ends = (0, len(layers) - 1) if layers and all(joined) else (None, None)
    return [*found, ends]
