"""How many bytes of a rank's arrays are alive, by what they are for, at any moment of a trace.

    weights      ───────────────────────────      an array counts from when it is noted until
    gradients                ┌───┬──────────      nobody holds it any more; a weak reference tells
    activations    ┌──┬──┬───┘   └───┐

So nothing is searched through, and ranks that are threads of one process have an account each.
What is noted: leaves that want a gradient (weights), when they are used; their gradients, when they
are final; what the closure of a vjp holds (graph.py: that is what a forward pass keeps); and what
its owner says itself (`spans.hold`): optimizer state, buckets, batches. The first word counts.

A view counts as the array that it is a part of, for that is what it keeps alive. In memory between
ranks everybody has a part: that counts where its owner says so.
Left out: what an op needs while it runs, gradients of activations, buffers of the transport.
Cost: some microseconds for each op, so activations count in the first steps of a training and then
in some of them only (`in_step`): they are alike.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np

from minipar.array import Array, is_array

KINDS = ("weights", "gradients", "optimizer", "buffers", "activations")
WEIGHTS, GRADIENTS, ACTIVATIONS = (KINDS.index(k) for k in ("weights", "gradients", "activations"))
FIRST_STEPS, EVERY = 10, 10  # in which activations count: these, and then every tenth
ARRAY, TENSOR, DICT, LIST, OTHER_HOLDER, NOTHING = range(1, 7)  # sorts of things


def in_step(step: int) -> bool:
    """Whether activations count in that step; outside of steps (-1) they do."""
    return step < FIRST_STEPS or step % EVERY == 0


class Alive:
    """The account of one rank."""

    def __init__(self) -> None:
        self.nbytes = [0] * len(KINDS)
        self.changed = True  # since somebody has set it to False
        self._noted: dict[int, _Noted] = {}  # by id
        self._taken: dict[int, int] = {}  # dicts that were taken: id -> that of an array in it
        self._leaves: dict[int, Any] = {}  # those that are listened to: id -> weak reference
        self._final = self._note_gradient  # one object, so that it can be taken away again
        self._sorts: dict[type, int] = {}

    def note(self, kind: int, array: Array, shared: bool = False) -> None:
        """Count an array, if it is new.  shared: also if it lies in memory between ranks."""
        if array.base is not None:
            whole = _whole(array)
            if whole is not None:
                array = whole
            elif not shared:
                return
        key = id(array)
        if key not in self._noted:
            self._noted[key] = noted = _Noted(array, self._gone)
            noted.key, noted.kind, noted.nbytes = key, kind, array.nbytes
            self.nbytes[kind] += noted.nbytes
            self.changed = True

    def take(self, kind: int, thing: Any) -> None:
        """Count the arrays of tensors, and of lists, tuples and dicts of them.

        Of a dict whose first array is known all is known: it is asked for in each step.
        """
        sort = self._sorts.get(type(thing)) or self._sort(type(thing))
        if sort == ARRAY:
            self.note(kind, thing, shared=True)
        elif sort == TENSOR:
            self.note(kind, thing.data, shared=True)
        elif sort == LIST:
            for part in thing:
                self.take(kind, part)
        elif sort == DICT and self._taken.get(id(thing)) not in self._noted:
            before = len(self._noted)
            self.take(kind, list(thing.values()))
            if len(self._noted) > before:
                self._taken[id(thing)] = next(reversed(self._noted))

    def node(self, node: Any) -> None:
        """Count what a node of the graph was made from, and what it keeps."""
        for parent in node.parents:
            if (self._sorts.get(type(parent)) or self._sort(type(parent))) == TENSOR:
                self._leaf(parent)
        self._keep(node.vjp)

    def close(self) -> None:
        """Count no longer, and listen to nobody."""
        for reference in list(self._leaves.values()):
            leaf = reference()
            if leaf is not None:
                leaf.listeners = tuple(f for f in leaf.listeners if f is not self._final)
        self._leaves, self._noted = {}, {}

    def _gone(self, noted: _Noted) -> None:
        del self._noted[noted.key]
        self.nbytes[noted.kind] -= noted.nbytes
        self.changed = True

    def _leaf(self, leaf: Any) -> None:
        if is_array(leaf.data):  # no worker holds the tables of parameter servers
            self.note(WEIGHTS, leaf.data)
        if id(leaf) not in self._leaves:
            self._leaves[id(leaf)] = weakref.ref(leaf, partial(self._leaves.pop, id(leaf)))
            leaf.listeners = (self._final, *leaf.listeners)  # before others take the gradient away

    def _note_gradient(self, leaf: Any) -> None:
        grad = getattr(leaf.grad, "rows", leaf.grad)  # sparse.RowGradient
        if is_array(grad):
            self.note(GRADIENTS, grad)

    def _keep(self, vjp: Any) -> None:
        """Count the arrays that a closure holds, directly or in what it holds.

        It is looked into at each node of a traced step: what is nothing comes first here.
        """
        sorts, seen = self._sorts, set[int]()
        stack = _contents(vjp.__closure__ or ()) if type(vjp) is FunctionType else [vjp]
        for thing in stack:  # which grows
            sort = sorts.get(type(thing)) or self._sort(type(thing))
            if sort == NOTHING:
                continue
            if sort == ARRAY:
                self.note(ACTIVATIONS, thing)
            elif sort == TENSOR:
                leaf = thing.requires_grad and thing._node is None
                self.note(WEIGHTS if leaf else ACTIVATIONS, thing.data)
            elif sort != DICT and id(thing) not in seen:
                seen.add(id(thing))
                if sort == OTHER_HOLDER:
                    stack += _parts(thing)
                elif thing and type(thing[0]) is not int:  # it is no shape
                    stack += thing

    def _sort(self, kind: type) -> int:
        """What things of a type are; found out once for each."""
        found = NOTHING
        if hasattr(kind, "requires_grad"):
            found = TENSOR
        elif (
            hasattr(kind, "strides") and hasattr(kind, "base") and not issubclass(kind, np.generic)
        ):
            found = ARRAY  # of NumPy or CuPy
        elif issubclass(kind, dict):
            found = DICT
        elif issubclass(kind, list | tuple):
            found = LIST
        elif issubclass(kind, FunctionType | partial | MethodType):
            found = OTHER_HOLDER
        self._sorts[kind] = found
        return found


class _Noted(weakref.ref):
    """An array that counts, and how."""

    __slots__ = ("key", "kind", "nbytes")
    key: int
    kind: int
    nbytes: int


def _parts(thing: Any) -> Iterable[Any]:
    """What a function or a method holds."""
    if isinstance(thing, FunctionType):
        return _contents(thing.__closure__ or ())
    if isinstance(thing, partial):
        return (thing.func, *thing.args, *thing.keywords.values())
    return getattr(thing.__self__, "__dict__", {}).values()


def _contents(closure: Iterable[CellType]) -> list[Any]:
    found = []
    for cell in closure:
        try:
            found.append(cell.cell_contents)
        except ValueError:  # it is still empty
            continue
    return found


def _whole(array: Array) -> Array | None:
    """The array that a view is a part of; None if it lies in memory that no array owns."""
    while array.base is not None:
        if not is_array(array.base):
            return None
        array = array.base
    return array
