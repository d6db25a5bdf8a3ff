"""Recomputation: give up the activations of a part of the model, compute them again in backward.

    kept without:   x  a  b  c  z        everything between x and z, until backward
    kept with:      x           z        checkpoint(fn, x): backward runs fn(x) again first

A chain of n equal layers, checkpointed in √n groups, holds about 2√n activations in place of n, for
one forward pass more (Chen et al. 2016, "Training deep nets with sublinear memory cost", section
3). Random numbers belong to things here (`random.Draw`), so dropout drops the same elements the
second time, and the gradients are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from minipar.ambient import grad_enabled
from minipar.array import Array
from minipar.errors import GraphError, UsageError
from minipar.graph import Node, collect
from minipar.spans import hold
from minipar.tensor import Tensor, record


def checkpoint(fn: Callable[..., Tensor], *args: Any) -> Tensor:
    """z = fn(*args), keeping only the args until backward, which calls fn once more.

    fn:     the same args must give the same z. It may use weights (leaves) as it likes; any other
            tensor that it computes with must be one of the args.
    args:   tensors, and anything else (a Draw, arrays), which is passed on as it is.
    Cost:   one more forward pass of fn. The memory of all that fn computes is in use while it runs.
    Raises: UsageError if fn does not return a tensor; GraphError if it uses a tensor from outside
            that was computed.
    """
    mode = grad_enabled.get()
    if not mode:
        return fn(*args)
    hold("activations", args)
    inside = _Inside(mode)
    inputs = _cut_off(args)
    with _recording(inside):
        z = fn(*inputs)
    if not isinstance(z, Tensor):
        raise UsageError(
            f"checkpoint: the function returned {type(z).__name__}; it must return one tensor."
        )
    own = {id(x) for x in inputs}
    weights = [leaf for leaf in inside.leaves(z) if id(leaf) not in own]
    given = [x for x in args if isinstance(x, Tensor)]

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        again = _cut_off(args)
        with _recording(mode):
            z = fn(*again)
        sources = [x for x in again if isinstance(x, Tensor)] + weights
        some = [x for x, want in zip(sources, wanted) if want]
        found = iter(collect(z._node or z, dz, some))
        return [next(found) if want else None for want in wanted]

    return record(z.data, (*given, *weights), vjp)


def _cut_off(args: Sequence[Any]) -> list[Any]:
    """The args with each tensor as a leaf of its own, so that gradients end there."""
    return [Tensor(x.data, x.requires_grad) if isinstance(x, Tensor) else x for x in args]


@contextmanager
def _recording(mode: Any) -> Iterator[None]:
    token = grad_enabled.set(mode)
    try:
        yield
    finally:
        grad_enabled.reset(token)


class _Inside:
    """Notes which nodes are made while it is the mode of `grad_enabled`."""

    def __init__(self, outer: Any) -> None:
        self.outer, self.made = outer, set[int]()

    def watch(self, node: Node) -> None:
        self.made.add(id(node))
        if self.outer is not True:
            self.outer.watch(node)

    def leaves(self, z: Tensor) -> list[Any]:
        """The leaves below z, first use first.  Raises: GraphError at a node made elsewhere."""
        found: dict[int, Any] = {}
        stack: list[Any] = [z._node or z] if z.requires_grad else []
        seen = set(map(id, stack))
        while stack:
            node = stack.pop()
            if not isinstance(node, Node):
                found[id(node)] = node
                continue
            if id(node) not in self.made:
                raise GraphError(
                    f"checkpoint: the function uses a tensor that was computed outside, by {node}. "
                    "Pass it as an argument: checkpoint(fn, x, h), so that it can be kept."
                )
            for p in node.parents:
                if p is not None and id(p) not in seen:
                    seen.add(id(p))
                    stack.append(p)
        return list(found.values())
