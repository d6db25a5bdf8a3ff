"""How many bytes of parameters, gradients and optimizer state a rank holds, counted.

Everything that can be reached from a strategy and its model is looked at, and every array counted
once, however many views there are of it. (A view keeps all of its array alive, so all of it
counts.) What the graph of a forward pass keeps is not among it: those are activations.
"""

from __future__ import annotations

from typing import Any

from minipar.array import Array, is_array
from minipar.comm.asynchronous import Handle
from minipar.comm.group import Group
from minipar.nn import Module
from minipar.tensor import Tensor


def held_bytes(*things: Any) -> int:
    """The bytes of all arrays that these objects hold, directly or through others."""
    return sum(array.nbytes for array in _arrays(list(things)))


class Peak:
    """The most that was held at any moment of backward.

    Looked at is when a gradient is final, before anybody takes it: then it is there beside the
    bucket that it will go to, and beside the weights that made it.
    """

    def __init__(self, model: Module, strategy: Any) -> None:
        """strategy: any that has been constructed; all that it holds is counted, too."""
        self.nbytes = 0
        self._things = model, strategy
        for x in model.parameters():
            x.listeners = (self._look, *x.listeners)

    def _look(self, x: Tensor) -> None:
        self.nbytes = max(self.nbytes, held_bytes(*self._things))


def _arrays(stack: list[Any]) -> list[Array]:
    seen: dict[int, Any] = {}
    while stack:
        thing = stack.pop()
        if is_array(thing):
            while is_array(thing.base):
                thing = thing.base
        code = callable(thing) and not isinstance(thing, Module)
        if id(thing) in seen or code or isinstance(thing, Group | Handle):
            continue
        seen[id(thing)] = thing
        if isinstance(thing, Tensor):
            stack += [thing.data, thing.grad]
        elif isinstance(thing, dict):
            stack += thing.values()
        elif isinstance(thing, list | tuple):
            stack += thing
        elif hasattr(thing, "__dict__"):
            stack += vars(thing).values()
    return [thing for thing in seen.values() if is_array(thing)]
