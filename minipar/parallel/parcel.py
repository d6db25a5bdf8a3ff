"""What travels between the stages of a pipeline: a label, then the arrays.

    label    1024 bytes of JSON      ["F", 3, 0,  ["(", ["float32", [2, 64], 2], null]]
    arrays   a message each, in the order in which they stand in the label

A stage may give a tensor, or tuples, lists and dicts of tensors, arrays and None, as nested as it
likes. The label says for which action of the receiver the parcel is: stages may do things in
different orders, and the forwards and backwards of several chunks may share a line. What comes
early is put aside. Nothing is pickled, and a label always has the same size, so each receive knows
what it gets, as it must where transports have no headers of their own (NCCL). A label is in host
memory, wherever the arrays are: nobody waits for a GPU to read it.

A stage begins to send and goes on, also on a transport without buffers (rendezvous). It waits only
for its parcel before, of the same kind to the same stage, to be taken; so no more than one of each
is under way. That is the rule by which schedules are checked for deadlock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minipar.array import Array
from minipar.comm.frame import dtype_of
from minipar.comm.group import Group
from minipar.comm.transport import BUFFERED_BYTES, Pending
from minipar.errors import UsageError
from minipar.tensor import Tensor

LABEL_BYTES = 1024
LINE = 64  # staged arrays begin at cache lines
PLAIN, DATA, WANTS_GRADIENT = 0, 1, 2  # an array; a tensor; one that wants a gradient
Key = tuple[str, int, int]  # phase, micro-batch, chunk: an action of the receiver


class Mail:
    """The parcels of one stage, to and from the others."""

    def __init__(self, group: Group, xp: Any = np, slots: Array | None = None) -> None:
        """xp: the array module of what travels.  slots: see `slots_for`."""
        self.group, self.xp, self.slots = group, xp, slots
        self.largest = 0  # bytes of a parcel that `slots` should have room for
        self._next_slot = {"F": 0, "B": 0}
        self._early: dict[Key, Any] = {}
        self._sent: dict[tuple[int, str], list[Pending]] = {}  # the last parcel of a kind
        self.waited = 0  # ns in which `take` waited, so far

    def post(self, dst: int, key: Key, tree: Any) -> None:
        """Begin to send, and see to it that the parcel before has been taken.

        Nobody changes the arrays any more.
        """
        arrays: list[Array] = []
        form = _taken_apart(tree, arrays)
        if dst == self.group.rank:
            self._early[key] = _put_together(form, lambda shape, dtype: arrays.pop(0))
            return
        label, before = _label([*key, form]), self._sent.get((dst, key[0]), ())
        arrays = self._staged(key[0], arrays)
        self._sent[dst, key[0]] = [self.group.isend(array, dst) for array in (label, *arrays)]
        for sending in before:
            sending.wait()

    def _staged(self, kind: str, arrays: list[Array]) -> list[Array]:
        """The arrays, those that are large as copies in a slot, if there is one with room."""
        starts = [0]
        for array in arrays:
            large = array.nbytes > BUFFERED_BYTES
            starts.append(starts[-1] + (-(-array.nbytes // LINE) * LINE if large else 0))
        self.largest = max(self.largest, starts[-1])
        if self.slots is None or not 0 < starts[-1] <= self.slots.shape[-1]:
            return arrays
        slot = self.slots["FB".index(kind), self._next_slot[kind]]
        self._next_slot[kind] ^= 1  # what is in the other one is waited for before it is used again
        staged = []
        for array, start, stop in zip(arrays, starts, starts[1:]):
            if start < stop:
                place = slot[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
                place[...] = array
                array = place
            staged.append(array)
        return staged

    def take(self, src: int, key: Key) -> Any:
        """The parcel for that action; tensors that want a gradient are leaves of a new graph."""

        def receive(shape: tuple[int, ...], dtype: str) -> Array:
            return self.group.recv(src, out=self.xp.empty(shape, dtype_of(dtype)))

        begin = time.perf_counter_ns()
        while key not in self._early:
            label = self.group.recv(src, out=np.empty(LABEL_BYTES, np.uint8))
            phase, micro, chunk, form = json.loads(label.tobytes())
            self._early[phase, micro, chunk] = _put_together(form, receive)
        self.waited += time.perf_counter_ns() - begin
        return self._early.pop(key)

    def finish(self) -> None:
        """Wait until all has been taken."""
        for sendings in self._sent.values():
            for sending in sendings:
                sending.wait()
        self._sent.clear()


def slots_for(largest: int, group: Group) -> Array:
    """Memory that the transport reaches directly, two slots for each kind of parcel.  Collective.

    On processes of one host a receiver copies large arrays out of it by itself. From elsewhere it
    would get them only as fast as the sender, who is about to compute, comes to hand them over.
    """
    return group.empty((2, 2, largest), np.uint8)


def leaves_of(tree: Any) -> Iterator[Any]:
    """The tensors, arrays and Nones of a tree, in the order in which they travel."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, tuple | list):
        for branch in tree:
            yield from leaves_of(branch)
    else:
        yield tree


def mapped(fn: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with fn(leaf) in the place of each leaf."""
    if isinstance(tree, dict):
        return {name: mapped(fn, branch) for name, branch in tree.items()}
    if isinstance(tree, tuple | list):
        return type(tree)([mapped(fn, branch) for branch in tree])
    return fn(tree)


def _taken_apart(tree: Any, arrays: list[Array]) -> Any:
    """The form of a tree, as a label has it; its arrays are appended to `arrays`."""
    if isinstance(tree, dict):
        return ["{", *([name, _taken_apart(branch, arrays)] for name, branch in tree.items())]
    if isinstance(tree, tuple | list):
        opening = "(" if isinstance(tree, tuple) else "["
        return [opening, *(_taken_apart(branch, arrays) for branch in tree)]
    if tree is None:
        return None
    kind = DATA + tree.requires_grad if isinstance(tree, Tensor) else PLAIN
    array = tree.data if isinstance(tree, Tensor) else tree
    arrays.append(array)
    return [array.dtype.name, list(array.shape), kind]


def _put_together(form: Any, array: Callable[[tuple[int, ...], str], Array]) -> Any:
    """The tree of that form, its arrays from array(shape, dtype)."""
    if form is None:
        return None
    if form[0] == "{":
        return {name: _put_together(branch, array) for name, branch in form[1:]}
    if form[0] in ("(", "["):
        branches = [_put_together(branch, array) for branch in form[1:]]
        return tuple(branches) if form[0] == "(" else branches
    dtype, shape, kind = form
    data = array(tuple(shape), dtype)
    return data if kind == PLAIN else Tensor(data, kind == WANTS_GRADIENT)


def _label(words: list[Any]) -> np.ndarray:
    text = json.dumps(words, separators=(",", ":")).encode()
    if len(text) > LABEL_BYTES:
        raise UsageError(
            f"what a stage gives to the next one takes {len(text)} bytes to describe, and there is "
            f"room for {LABEL_BYTES}: give fewer arrays, concatenated where they can be."
        )
    return np.frombuffer(text.ljust(LABEL_BYTES), np.uint8)
