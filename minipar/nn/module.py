"""A module is an object whose attributes are parameters (tensors) and other modules.

There is no registration: `named_parameters` walks the attributes in the order in which they were
set, also through lists and tuples, so a parameter's name is the path that reaches it:

    model.blocks[0].mlp.up.weight    is    "blocks.0.mlp.up.weight"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from minipar.array import Array, array_module, describe
from minipar.errors import ShapeMismatch, UsageError
from minipar.spans import layered
from minipar.tensor import Tensor


class Module:
    """Base of layers and models. A subclass sets attributes in __init__ and defines __call__."""

    __call__: Callable[..., Any]

    def __init_subclass__(cls, **options: Any) -> None:
        """Each __call__ is a span in a trace, while somebody traces."""
        super().__init_subclass__(**options)
        if "__call__" in vars(cls):
            cls.__call__ = layered(vars(cls)["__call__"])  # type: ignore[method-assign]

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of each parameter; a shared one once, under its first name.

        Frozen parameters (requires_grad=False) are among them.
        """
        seen: set[int] = set()
        for name, parameter in _walk(vars(self), prefix):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> list[Tensor]:
        return [parameter for _, parameter in self.named_parameters()]

    def modules(self) -> Iterator[Module]:
        """This module and all inside it; a shared one as often as it is reached."""
        yield self
        yield from _modules(vars(self).values())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(name, module) of all inside this module, by the paths that reach them."""
        yield from _named_modules(vars(self), prefix)

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.zero_grad()

    def state_dict(self) -> dict[str, Array]:
        """A copy of each parameter's array by name."""
        return {name: parameter.data.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy arrays into the parameters, in place; nothing is changed if anything is wrong.

        strict=False leaves out names that only one side has.
        """
        own = dict(self.named_parameters())
        missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
        if strict and (missing or unexpected):
            raise UsageError(
                f"load_state_dict: missing {sorted(missing)}, unexpected {sorted(unexpected)}. "
                "Was the state saved from a model of another size? strict=False takes what fits."
            )
        shared = own.keys() & state.keys()
        for name in sorted(shared):
            if own[name].shape != state[name].shape:
                raise ShapeMismatch(
                    f"load_state_dict: {name} is {describe(own[name].data)} in the model, "
                    f"{describe(state[name])} in the state."
                )
        for name in shared:
            data = own[name].data
            data[...] = array_module(data).asarray(state[name])


def _walk(parts: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for key, part in parts.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(part, Tensor):
            yield name, part
        elif isinstance(part, Module):
            yield from _walk(vars(part), name)
        elif isinstance(part, list | tuple):
            yield from _walk({str(i): item for i, item in enumerate(part)}, name)


def _named_modules(parts: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Module]]:
    for key, part in parts.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(part, Module):
            yield name, part
            yield from _named_modules(vars(part), name)
        elif isinstance(part, list | tuple):
            yield from _named_modules({str(i): item for i, item in enumerate(part)}, name)


def _modules(parts: Iterable[Any]) -> Iterator[Module]:
    for part in parts:
        if isinstance(part, Module):
            yield from part.modules()
        elif isinstance(part, list | tuple):
            yield from _modules(part)
