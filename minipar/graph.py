"""The graph behind the tensors, and how a gradient travels through it.

    x ──┐
        ├─ matmul ── + ── loss          backward:  loss, +, matmul, then the leaves x, w, b
    w ──┘            │
    b ───────────────┘

`backward` first lists the nodes so that each stands after all of its consumers (Kahn 1962), then
calls each node's vjp once with the complete gradient of its output, adding up what the vjps of
several consumers give. It holds no value: a node has only parents and a vjp, so a value that no vjp
asked for is freed as soon as the forward pass drops it, and what the vjp closures capture is
exactly the activation memory. A node is freed when its gradient has passed, unless the graph is to
be retained. Nothing recurses, so a graph may be 100,000 nodes deep.

With deferred leaves the same walk is made in two halves. A node that only deferred leaves need
waits; one that both need gets its vjp called twice, with complementary `wanted`.

Letters: dz the gradient of the loss by a node's output, g the one for a parent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from minipar.array import Array, array_module, describe
from minipar.errors import GraphError, ShapeMismatch
from minipar.origin import Origin, op_name, place

Vjp = Callable[[Array, tuple[bool, ...]], Sequence[Array | None]]
Finish = Callable[[Any, Array, bool], None]  # leaf, gradient, whether nobody else can see it


class Leaf(Protocol):
    """Where a gradient ends: a tensor that was not computed."""

    grad: Array | None
    listeners: tuple[Callable[[Any], None], ...]  # called when grad is complete

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...


class Node:
    """How a value was made. Parents are nodes, leaves, or None where no gradient goes."""

    __slots__ = ("__weakref__", "claimed", "dtype", "origin", "parents", "shape", "vjp")

    def __init__(
        self, value: Array, parents: Sequence[Node | Leaf | None], vjp: Vjp, origin: Origin
    ) -> None:
        self.shape, self.dtype = value.shape, value.dtype
        self.parents, self.vjp, self.origin = parents, vjp, origin
        self.claimed = False  # by a backward

    def __str__(self) -> str:
        name = "an op" if self.vjp is _freed else op_name(self.vjp)
        return f"{name} at {place(self.origin)}"


def backward(
    root: Node | Leaf,
    dz: Array,
    deferred: frozenset[int] = frozenset(),
    retain: bool = False,
    finish: Finish | None = None,
) -> Callable[[], None]:
    """Carry dz from root to the leaves below it.

    deferred: ids of leaves that can wait; the function returned does what serves only them.
    retain:   keep the graph, for another backward.
    finish:   what is done with a leaf's complete gradient; to add it to .grad if None.
    """
    order = _consumers_first(root, retain)
    finish = finish or _add_to_grad
    everything = {id(n) for n in order}
    now = _reaching(order, deferred) if deferred else everything
    later = everything - now
    sums = _Sums()
    sums.add(root, dz, fresh=False)
    left = _carry(order, sums, now, later, retain, finish)

    def rest() -> None:
        if left.done:
            raise GraphError("These deferred gradients have been computed already.")
        left.done = True
        _carry(left.order, left.sums, later, set(), retain, finish)

    return rest


def leaves(root: Node | Leaf) -> list[Any]:
    """The leaves that root was computed from, in an order that the graph alone decides."""
    return [n for n in _consumers_first(root, retain=True) if not isinstance(n, Node)]


def collect(root: Node | Leaf, dz: Array, wanted: Sequence[Leaf]) -> list[Array]:
    """The gradients of these leaves, and nothing added to anybody's .grad; frees the graph.

    A leaf that root does not depend on gets zeros.
    """
    found: dict[int, Array] = {}

    def finish(leaf: Leaf, g: Array, fresh: bool) -> None:
        found[id(leaf)] = _own(g, fresh)

    others = frozenset(id(leaf) for leaf in leaves(root)) - {id(leaf) for leaf in wanted}
    backward(root, dz, deferred=others, finish=finish)  # what serves only the others is left undone
    xp = array_module(dz)
    return [found[id(w)] if id(w) in found else xp.zeros(w.shape, w.dtype) for w in wanted]


def _consumers_first(root: Node | Leaf, retain: bool) -> list[Node | Leaf]:
    """Nodes and leaves below root, in reverse order: pop() gives each after all its consumers."""
    uses, stack = {id(root): 0}, [root]
    while stack:  # count the edges into each
        for p in _parents(stack.pop()):
            seen = uses.get(id(p), 0)
            uses[id(p)] = seen + 1
            if not seen:
                stack.append(p)
    order, ready = [], [root]
    while ready:  # take what has no edge left
        node = ready.pop()
        order.append(node)
        for p in _parents(node):
            uses[id(p)] -= 1
            if not uses[id(p)]:
                ready.append(p)
    for node in order:
        if isinstance(node, Node):
            node.claimed = not retain
    order.reverse()
    return order


def _parents(node: Node | Leaf) -> Sequence[Node | Leaf]:
    if not isinstance(node, Node):
        return ()
    if node.claimed:
        raise GraphError(
            "backward() has gone through this graph before, and freed it (met at a value that was "
            f"made at {place(node.origin)}). Compute the forward pass again; to take the gradient "
            "of several losses, add them up and call backward() once, or keep the graph with "
            "backward(retain_graph=True)."
        )
    return [p for p in node.parents if p is not None]


def _reaching(order: list[Node | Leaf], deferred: frozenset[int]) -> set[int]:
    """The ids of what a leaf that is not deferred depends on, and of such leaves."""
    reaching: set[int] = set()
    for node in order:  # parents before consumers
        if not isinstance(node, Node):
            reached = id(node) not in deferred
        else:
            reached = any(id(p) in reaching for p in node.parents)
        if reached:
            reaching.add(id(node))
    return reaching


class _Sums:
    """The gradients on their way: for each node or leaf, the total of what arrived so far."""

    def __init__(self) -> None:
        self.total: dict[int, Array] = {}
        self.fresh: set[int] = set()  # ids whose total nobody else can see

    def add(self, to: Node | Leaf, g: Array, fresh: bool) -> None:
        key = id(to)
        before = self.total.get(key)
        if before is None:
            self.total[key] = g
        elif key in self.fresh:
            self.total[key] = _added(before, g)  # in place, unless NumPy makes it a scalar
            return
        elif fresh:
            self.total[key] = _added(g, before)
        else:
            self.total[key], fresh = before + g, True
        if fresh:
            self.fresh.add(key)

    def pop(self, of: Node | Leaf) -> tuple[Array, bool]:
        fresh = id(of) in self.fresh
        self.fresh.discard(id(of))
        return self.total.pop(id(of)), fresh


class _Left:
    """What a deferring backward has not done: nodes in order, and the gradients at them."""

    def __init__(self) -> None:
        self.order: list[Node | Leaf] = []
        self.sums = _Sums()
        self.done = False


def _freed(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
    raise AssertionError("a freed node was visited")


def _carry(
    order: list[Node | Leaf],
    sums: _Sums,
    now: set[int],
    later: set[int],
    retain: bool,
    finish: Finish,
) -> _Left:
    """Carry `sums` down to the nodes and leaves in `now`, using up `order`; return what is left."""
    left = _Left()
    while order:
        node = order.pop()
        if id(node) not in sums.total:  # reached only in the second half
            left.order.append(node)
            continue
        g, fresh = sums.pop(node)
        if not isinstance(node, Node):
            finish(node, g, fresh)
            continue
        wanted = tuple([id(p) in now for p in node.parents])
        if True in wanted:
            _deliver(node, g, wanted, sums)
        if later and not later.isdisjoint(map(id, node.parents)):
            left.order.append(node)
            left.sums.add(node, g, fresh=False)
        elif not retain:
            node.parents, node.vjp = (), _freed
    left.order.reverse()
    return left


def _deliver(node: Node, dz: Array, wanted: tuple[bool, ...], sums: _Sums) -> None:
    """Call the node's vjp and hand its results to the parents."""
    results = node.vjp(dz, wanted)
    if not isinstance(results, tuple | list) or len(results) != len(node.parents):
        got = f"{len(results)} of them" if isinstance(results, tuple | list) else type(results)
        raise GraphError(
            f"backward of {node}: its vjp must return a tuple with one array (or None) for each of "
            f"{len(node.parents)} parents; it returned {got}. With one parent: return (dx,)."
        )
    for p, g, want in zip(node.parents, results, wanted, strict=True):
        if p is None or not want:
            continue
        if g is None or g.shape != p.shape:
            got = "nothing" if g is None else describe(g)
            raise ShapeMismatch(
                f"backward of {node}: a parent is {p.dtype}{list(p.shape)}, its gradient is {got}. "
                "A vjp returns one array for each wanted parent, of that parent's shape."
            )
        if g.ndim == 0:
            g = array_module(dz).asarray(g)  # NumPy gives scalars where 0-d arrays are meant
        fresh = g is not dz and g.base is None and sum(h is g for h in results) == 1
        if g.dtype != p.dtype:
            g, fresh = g.astype(p.dtype), True
        sums.add(p, g, fresh)


def _added(total: Array, g: Array) -> Array:
    """total += g, in place where it can be; either may be a RowGradient (sparse.py)."""
    if hasattr(g, "add_to"):
        return g.add_to(total)
    total += g
    return total


def _add_to_grad(leaf: Leaf, g: Array, fresh: bool) -> None:
    """Add the complete gradient of a leaf to its .grad, which no other tensor may share."""
    if leaf.grad is not None:
        leaf.grad = _added(leaf.grad, g)
    else:
        leaf.grad = _own(g, fresh)
    for listener in leaf.listeners:
        listener(leaf)


def _own(g: Array, fresh: bool) -> Array:
    """g as an array that nobody else can see."""
    if not fresh:
        return g.copy()
    return g if g.ndim else array_module(g).asarray(g)  # NumPy's 0-d sums are scalars
