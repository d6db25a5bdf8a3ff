"""What a tensor is to the other ranks: a label, kept inside `checks()` and nowhere else.

    replicated      every rank has the same, all of it
    sharded(axis)   every rank has another part, along an axis
    partial         every rank has a summand of the true value

The layers that are shared out (parallel/tensor_layers.py) put labels on what they give, and say
what they take. In between each op passes them on: `reshape` of a partial sum is a partial sum, the
gelu of one is a mistake.

    with minipar.checks():
        z = gelu(half_of_a_row_layer(x))
    LabelMismatch: rank 1/2: gelu at model.py:12 takes a value that is only a partial sum, ...

What has no label may go anywhere. Known are only values that need a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from minipar.ambient import grad_enabled
from minipar.errors import LabelMismatch
from minipar.graph import Node
from minipar.origin import op_name
from minipar.tensor import Tensor, shown

REPLICATED, SHARDED, PARTIAL = "replicated", "sharded", "partial"
SAID = MappingProxyType(  # how messages call them
    {
        REPLICATED: "what every rank has in full",
        SHARDED: "a shard",
        PARTIAL: "a partial sum",
    }
)
MOVING = frozenset(
    {"reshape", "transpose", "getitem", "neg", "sum", "mean", "pad", "broadcast_to", "split"}
)
ADDING = frozenset({"add", "sub"})
SCALING = frozenset({"mul", "div"})
CROSSING = frozenset({"sum_over_shards", "scatter_positions"})  # what they give is labelled anew
WHOLE_ROWS = frozenset({"layer_norm", "rms_norm", "softmax", "log_softmax", "cross_entropy"})
LAST = -1


class Label(NamedTuple):
    """The kind, the axis of a shard (None: not known any more), and who says so."""

    kind: str
    axis: int | None
    layer: str
    rank: int
    size: int

    def __str__(self) -> str:
        axis = f" along axis {self.axis}" if self.kind == SHARDED and self.axis is not None else ""
        return f"{SAID[self.kind]}{axis}, made by layer {self.layer or '(without a name)'}"


class Labels:
    """The labels of what was recorded inside a `checks()`."""

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[Any, Label] = WeakKeyDictionary()

    def get(self, x: Any) -> Label | None:
        return self._of.get(x._node or x if isinstance(x, Tensor) else x)

    def put(self, x: Tensor | Node, label: Label) -> None:
        self._of[x._node or x if isinstance(x, Tensor) else x] = label

    def pass_on(self, node: Node) -> None:
        """Give the value of a new node its label.  Raises: LabelMismatch."""
        parents = [p for p in node.parents if p is not None]
        found = [label for p in parents if (label := self.get(p)) is not None]
        if not found:
            return
        op = op_name(node.vjp)
        if op in CROSSING:
            return
        kinds = [label.kind for label in found]
        if PARTIAL in kinds:
            label = found[kinds.index(PARTIAL)]
            alike = kinds.count(PARTIAL) == len(parents)
            if not (op in MOVING | SCALING and len(parents) == 1) and not (op in ADDING and alike):
                raise self._misused(node, label, "The sum over the ranks must come first.")
            self.put(node, label)
            return
        if SHARDED in kinds:
            label = found[kinds.index(SHARDED)]
            shapes = [p.shape for p in parents if self.get(p) is label]
            if op in WHOLE_ROWS and label.axis == LAST:
                raise self._misused(node, label, "It needs all of each row: gather them first.")
            if node.shape not in shapes:
                label = self._moved(op, label)
            self.put(node, label)
            return
        self.put(node, found[0])

    def _moved(self, op: str, label: Label) -> Label:
        """Positions stay where they are when features are mixed; else the axis is not known."""
        stays = op in ("linear", "linear_gelu") and label.axis not in (LAST, None)
        return label if stays else label._replace(axis=None)

    def _misused(self, node: Node, label: Label, cure: str) -> LabelMismatch:
        return LabelMismatch(
            f"rank {label.rank}/{label.size}: {node} takes a value that is only {label}; the "
            f"result would be {node.dtype}{list(node.shape)}. {cure}"
        )


def labels() -> Labels | None:
    """Those that are being kept, or None outside of `checks()`."""
    return getattr(grad_enabled.get(), "labels", None)


def label(x: Tensor, kind: str, layer: str, group: Any, axis: int | None = None) -> Tensor:
    """x, which from now on is known to be replicated, sharded or partial.

    layer: the name of the layer that gave it.  group: has the rank and size that messages name.
    """
    known = labels()
    if known is not None:
        known.put(x, Label(kind, axis, layer, group.rank, group.size))
    return x


def expect(
    x: Tensor, kinds: Sequence[str], op: str, layer: str, group: Any, axis: int | None = None
) -> None:
    """Raise LabelMismatch if x is labelled, but as something else; axis: of a shard."""
    known = labels()
    found = known and known.get(x)
    if not found:
        return
    elsewhere = found.kind == SHARDED and None not in (axis, found.axis) and axis != found.axis
    if found.kind not in kinds or elsewhere:
        wanted = " or ".join(SAID[kind] for kind in kinds)
        where = "" if axis is None else f" along axis {axis}"
        raise LabelMismatch(
            f"rank {group.rank}/{group.size}, layer {layer or '(without a name)'}: {op} takes "
            f"{wanted}{where}, but {shown(x)} is {found}."
        )
