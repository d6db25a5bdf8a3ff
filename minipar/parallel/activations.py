"""How many bytes a forward pass keeps until backward, counted on one row and on two.

    x ─► pieces of stage 0 ─► x' ─► pieces of stage 1 ─► loss          kept: what the vjps hold
         kept 5 arrays              kept 7 arrays

A vjp holds what it needs in its closure, and nothing else does (graph.py): so the arrays in the
closures of a graph are its activations. Weights are not among them, nor views of them. Rows of a
batch are alike, so b rows keep b times as much; beside it there may be what does not depend on the
rows, such as weights in another dtype. Two rows tell the one from the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from minipar.array import Array, is_array
from minipar.nn import Module, chain
from minipar.parallel.parcel import leaves_of, mapped
from minipar.parallel.passes import Loss, Part
from minipar.tensor import Tensor


class Kept(NamedTuple):
    """Of a part of the model, for the rows that went through: all in bytes."""

    entering: int  # of what comes from the part before; 0 for the first
    inside: int  # in the graph
    largest: int  # array of these: as large are the gradients that backward makes on its way
    fixed: int = 0  # in the graph, whatever the rows


def kept_by_parts(parts: Sequence[Sequence[Module]], micro: Part, loss: Loss) -> list[Kept]:
    """What each part of a model keeps.  parts: the pieces of each, in order.

    micro: a micro-batch, in training (with a draw).
    """
    found, x = [], micro.x
    for n, pieces in enumerate(parts):
        x = mapped(_leaf, x)
        z = chain(pieces, x, micro.draw)
        out = loss(z, micro.y) if n == len(parts) - 1 else z
        weights = (w.data for piece in pieces for w in piece.parameters())
        arrays = _kept_by(leaves_of(out), weights)
        sizes = [a.nbytes for a in arrays]
        entering = sum(t.data.nbytes for t in leaves_of(x) if isinstance(t, Tensor)) if n else 0
        found.append(Kept(entering, sum(sizes), max(sizes, default=0)))
        x = z
    return found


def of_a_row(one: Sequence[Kept], two: Sequence[Kept]) -> list[Kept]:
    """What each part keeps for a row, and beside it, from what it keeps for one row and for two."""
    found = []
    for a, b in zip(one, two):
        inside = b.inside - a.inside
        found.append(Kept(a.entering, inside, a.largest, max(0, a.inside - inside)))
    return found


def kept_by(z: Tensor, weights: Iterable[Tensor] = ()) -> int:
    """Bytes that the graph behind z keeps, weights aside."""
    return sum(a.nbytes for a in _kept_by([z], [w.data for w in weights]))


def _kept_by(outputs: Iterable[Any], weights: Iterable[Array]) -> list[Array]:
    found: dict[int, Array] = {}
    seen: set[int] = set()
    for node in _nodes([z._node for z in outputs if isinstance(z, Tensor)]):
        _look(node.vjp, found, seen)
    for w in weights:
        found.pop(id(_base(w)), None)
    return list(found.values())


def _nodes(stack: list[Any]) -> Iterator[Any]:
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if hasattr(node, "vjp") and id(node) not in seen:
            seen.add(id(node))
            yield node
            stack += node.parents


def _look(thing: Any, found: dict[int, Array], seen: set[int]) -> None:
    """Take the arrays that a closure holds, directly or in what it holds."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if is_array(thing):
        found[id(_base(thing))] = _base(thing)
    elif isinstance(thing, Tensor):
        _look(thing.data, found, seen)
    elif isinstance(thing, list | tuple):
        for part in thing:
            _look(part, found, seen)
    elif isinstance(thing, partial):
        _look([thing.func, *thing.args, *thing.keywords.values()], found, seen)
    elif isinstance(thing, MethodType):
        _look(list(getattr(thing.__self__, "__dict__", {}).values()), found, seen)
    elif isinstance(thing, FunctionType):
        for cell in thing.__closure__ or ():
            _look(cell.cell_contents, found, seen)


def _base(array: Array) -> Array:
    """A view keeps all of its array alive."""
    while is_array(array.base):
        array = array.base
    return array


def _leaf(x: Any) -> Any:
    return Tensor(x.data, x.requires_grad) if isinstance(x, Tensor) else x
