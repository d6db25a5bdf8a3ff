r"""Flat parameters, cut into one slice for each rank.

    parameters   [   up.weight 5·7    | up.bias 7 |  down.weight 7·3  | 3 ]  padding
    flat         ┌──────────────────┬──────────────────┬──────────────────┬─┐
                 └──────────────────┴──────────────────┴──────────────────┴─┘
    slices             rank 0             rank 1             rank 2            all as long as each
                                                                               other
A cut may go through the middle of a parameter. What lies of one parameter in the slice of a rank
is a *piece*: a tensor whose .data and .grad are views into the slice. The optimizer of a rank is
made over its pieces, under the names of the parameters, and needs to know nothing of all this:
every optimizer here treats each number by itself. Only the number of axes counts (AdamW spares
vectors the decay), so a piece has as many as its parameter, all but the last of length one.

Letters: p ranks, k the length of a slice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array, array_module, on_host, sum_dtype
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.nn import Module
from minipar.optim import check_state, squared_norm
from minipar.parallel.agreement import check_same_form
from minipar.parallel.held import Held, steps
from minipar.parallel.strategy import MakeOptimizer
from minipar.tensor import Tensor

Named = Iterable[tuple[str, Tensor]]


class Flat:
    """The order of some parameters in one array [p, k], whose row r is the slice of rank r."""

    def __init__(self, named: Named, p: int) -> None:
        """named: at least one parameter.  Raises: UsageError if their dtypes differ."""
        self.parameters = dict(named)
        tensors = list(self.parameters.values())
        self.like = array_module(tensors[0].data).zeros(0, tensors[0].dtype)
        if len({x.dtype for x in tensors}) > 1:
            dtypes = ", ".join(f"{name} {x.dtype}" for name, x in self.parameters.items())
            raise UsageError(f"Parameters of one unit must have one dtype; here are {dtypes}.")
        ends = list(accumulate((math.prod(x.shape) for x in tensors), initial=0))
        self.places = dict(zip(self.parameters, map(slice, ends, ends[1:])))
        self.shape = (p, math.ceil(ends[-1] / p))

    @property
    def nbytes(self) -> int:
        """With the padding."""
        return math.prod(self.shape) * self.like.dtype.itemsize

    def zeros(self) -> Array:
        return array_module(self.like).zeros(self.shape, self.like.dtype)

    def from_group(self, group: Group) -> Array:
        """As `zeros`, in memory that the transport reaches (collective)."""
        if not on_host(self.like):
            return self.zeros()
        array = group.empty(self.shape, self.like.dtype)
        array[...] = 0
        return array

    def view(self, array: Array, name: str) -> Array:
        """The place of a parameter in an array [p, k], in the shape of the parameter."""
        return array.reshape(-1)[self.places[name]].reshape(self.parameters[name].shape)

    def fill(self, array: Array) -> None:
        """Copy all parameters there."""
        for name, x in self.parameters.items():
            self.view(array, name)[...] = x.data


class Piece(NamedTuple):
    """What a slice holds of one parameter."""

    here: slice  # of the slice
    there: slice  # of the flattened parameter
    tensor: Tensor


class Slice:
    """What one rank keeps and updates of a flat."""

    def __init__(self, flat: Flat, rank: int, data: Array, grad: Array) -> None:
        """data, grad: flat arrays [k], which the pieces are views of."""
        self.flat, self.data, self.grad = flat, data, grad
        k = flat.shape[1]
        self.pieces = {}
        for name, place in flat.places.items():
            start, stop = max(place.start, rank * k), min(place.stop, (rank + 1) * k)
            if start < stop:
                here = slice(start - rank * k, stop - rank * k)
                there = slice(start - place.start, stop - place.start)
                shape = (1,) * (flat.parameters[name].ndim - 1) + (-1,)
                piece = Tensor(data[here].reshape(shape), requires_grad=True)
                self.pieces[name] = Piece(here, there, piece)

    def give_gradients(self, used: Collection[str]) -> None:
        """Show the optimizer those of the parameters that were used at all."""
        for name, (here, _, x) in self.pieces.items():
            x.grad = self.grad[here].reshape(x.shape) if name in used else None


class Owned:
    """All slices of a rank, and the optimizer over their pieces."""

    def __init__(self, slices: Sequence[Slice], group: Group, make: MakeOptimizer) -> None:
        self.slices, self.group = slices, group
        pieces = [(s, name, piece) for s in slices for name, piece in s.pieces.items()]
        if hasattr(make, "piece"):  # it has known the whole parameters
            for s, name, piece in pieces:
                make.piece(s.flat.parameters[name], piece.there, piece.tensor)
        self.optimizer = make((name, piece.tensor) for _, name, piece in pieces)
        if hasattr(self.optimizer, "owner"):
            self.optimizer.owner = self

    def clip(self, max_norm: float) -> float:
        """As `clip_grad_norm`, of the gradient whose slices all ranks hold together.

        Cost: an all_reduce of one number.
        """
        square = np.array(float(sum(squared_norm(s.grad) for s in self.slices)))
        norm = math.sqrt(float(self.group.all_reduce(square)))
        if norm > max_norm:
            for s in self.slices:
                s.grad *= max_norm / norm
        return norm

    def held(self) -> list[Held]:
        """The state of the own pieces."""
        found = [steps(self.optimizer)]
        for s in self.slices:
            for name, piece in s.pieces.items():
                shape, first = s.flat.parameters[name].shape, piece.there.start
                found += [
                    Held(f"optimizer/{name}/{slot}", array, shape, first)
                    for slot, array in self.optimizer.state[name].items()
                ]
        return found

    def held_weights(self) -> list[Held]:
        """The own pieces."""
        return [
            Held(f"model/{name}", x.data, s.flat.parameters[name].shape, there.start)
            for s in self.slices
            for name, (_, there, x) in s.pieces.items()
        ]

    def state_dict(self) -> dict[str, Array]:
        """As that of one optimizer over all parameters (collective)."""
        state = {"step": np.asarray(self.optimizer.steps)}
        for s in self.slices:
            for slot in self.optimizer.slots:
                of = {name: self.optimizer.state[name][slot] for name in s.pieces}
                whole = self._gathered(s, of)
                state |= {f"{name}/{slot}": array for name, array in whole.items()}
        return state

    def _gathered(self, s: Slice, of: Mapping[str, Array]) -> dict[str, Array]:
        """Whole arrays, of which each rank has a piece; half precision has float32 beside it."""
        own = array_module(s.data).zeros(s.data.shape, sum_dtype(s.data.dtype))
        for name, piece in s.pieces.items():
            own[piece.here] = of[name].reshape(-1)
        whole = self.group.all_gather(own)
        return {name: s.flat.view(whole, name).copy() for name in s.flat.parameters}

    def together(self, pieces: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Array]]:
        """The parameters and their whole arrays, of which ranks have these pieces (collective)."""
        arrays = {name: x.data for name, x in pieces.items()}
        return {
            name: (s.flat.parameters[name], array)
            for s in self.slices
            for name, array in self._gathered(s, arrays).items()
        }

    def cut(self, wholes: Mapping[str, Array], pieces: Mapping[str, Tensor]) -> None:
        """Write into each piece its part of a whole array."""
        for s in self.slices:
            for name, piece in s.pieces.items():
                x = pieces[name].data
                x[...] = wholes[name].reshape(-1)[piece.there].reshape(x.shape)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the own pieces out of complete state.  Raises: UsageError, ShapeMismatch."""
        self._check(state)
        own = {"step": state["step"]}
        for s in self.slices:
            for name, piece in s.pieces.items():
                for slot in self.optimizer.slots:
                    part = state[f"{name}/{slot}"].reshape(-1)[piece.there]
                    own[f"{name}/{slot}"] = part.reshape(piece.tensor.shape)
        self.optimizer.load_state_dict(own)

    def _check(self, state: Mapping[str, Any]) -> None:
        shapes = {
            f"{name}/{slot}": x.shape
            for s in self.slices
            for name, x in s.flat.parameters.items()
            for slot in self.optimizer.slots
        }
        check_state(shapes, state)


def trainable(model: Module) -> list[tuple[str, Tensor]]:
    return [(name, x) for name, x in model.named_parameters() if x.requires_grad]


def give_all_the_weights_of_rank_0(model: Module, group: Group) -> None:
    """Also what is not trained: frozen weights, running moments.

    Raises: ReplicasDiffer if the models of the ranks have other parameters, or in another order.
    """
    check_same_form(model, group)
    for x in model.parameters():
        x.data[...] = group.broadcast(x.data)


def flats_of(named: Named, p: int, nbytes: float = math.inf) -> list[Flat]:
    """Flats of at most nbytes each, unless one parameter alone is larger; one dtype in each."""
    parts: list[list[tuple[str, Tensor]]] = []
    room, dtype = 0.0, None
    for name, x in named:
        if x.data.nbytes > room or x.dtype != dtype:
            parts.append([])
            room, dtype = nbytes, x.dtype
        parts[-1].append((name, x))
        room -= x.data.nbytes
    return [Flat(part, p) for part in parts]
