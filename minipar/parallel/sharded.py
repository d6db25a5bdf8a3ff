r"""Sharded data parallel, stages 1 and 2 of ZeRO: no rank keeps what only another one needs.

Plain data parallel keeps parameters, gradients and optimizer state p times, the same on all ranks,
and makes the same update p times. Here rank r makes the update of slice r only:

    stage 1   parameters  ████████████   gradients  ████████████   state  ███·········   rank 0
              parameters  ████████████   gradients  ████████████   state  ···███······   rank 1
    stage 2   parameters  ████████████   gradients  ███·········   state  ███·········   rank 0

    reduce_scatter of the gradients: rank r gets the mean of slice r
    optimizer step on slice r
    all_gather of the parameters

An all_reduce is a reduce_scatter and an all_gather, so this sends what data parallel sends: only
the update is made between the two. Stage 2 reduces bucket by bucket during backward (reducer.py),
so that the complete gradient is never there. The slices are those of slices.py.

Sparse gradients (`RowGradient`) become dense here, for the slices cut across all rows. The .grad of
the model's parameters is not the mean: that is in the slices, for `clip` and `step`.
Cost per step: 2(p-1)/p of the parameter bytes out of each rank, and a few numbers.
Memory: `cost.zero1_kept`; `cost.zero2_kept`, and at the most `cost.zero2_passing` more.
Paper: Rajbhandari et al. 2020, sections 5.1, 5.2 and 7.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.nn import Module
from minipar.parallel.held import Held, weights
from minipar.parallel.reducer import Reducer, agree, share_of
from minipar.parallel.slices import (
    Flat,
    Owned,
    Slice,
    flats_of,
    give_all_the_weights_of_rank_0,
    trainable,
)
from minipar.parallel.strategy import MakeOptimizer
from minipar.spans import hold
from minipar.tensor import Tensor

BUCKET_BYTES = 4 * 2**20


class Zero1:
    """Stage 1: each rank keeps the optimizer state of its slice.  A `Strategy`."""

    def __init__(self, model: Module, group: Group, make_optimizer: MakeOptimizer) -> None:
        """make_optimizer: called with the pieces that this rank updates.  Collective."""
        give_all_the_weights_of_rank_0(model, group)
        self.model, self.group = model, group
        self.flats = flats_of(trainable(model), group.size)
        self.data = [_moved_into_one(flat, group) for flat in self.flats]
        self.grads = [flat.from_group(group) for flat in self.flats]
        hold("gradients", self.grads)
        self.used: set[str] = set()
        for flat in self.flats:
            for name, x in flat.parameters.items():
                x.when_final(partial(self._note, name))
        r = group.rank
        slices = [
            Slice(flat, r, data[r], grad[r])
            for flat, data, grad in zip(self.flats, self.data, self.grads)
        ]
        self.owned = Owned(slices, group, make_optimizer)
        self.optimizer = self.owned.optimizer
        self.zero_grad()

    def zero_grad(self) -> None:
        self.used.clear()
        for flat, grad in zip(self.flats, self.grads):
            grad[...] = 0
            for name, x in flat.parameters.items():
                x.grad = flat.view(grad, name)  # backward adds to it, in place

    def _note(self, name: str, _: Tensor) -> None:
        self.used.add(name)

    def no_sync(self) -> AbstractContextManager[None]:
        return nullcontext()  # nothing is sent before sync_gradients anyway

    def announce(self, rows: float) -> None:
        """Nothing: what `sync_gradients` is told comes early enough here."""

    def sync_gradients(self, rows: float = 1.0) -> None:
        """The mean over the rows of all ranks, of each slice on its rank."""
        names = [name for flat in self.flats for name in flat.parameters]
        told, used = agree(self.group, (rows,), names, self.used)
        share = share_of(rows, told)
        for s, grad in zip(self.owned.slices, self.grads):
            if share != 1:
                grad *= share
            self.group.reduce_scatter(grad.reshape(-1), op="mean", out=s.grad)
            s.give_gradients(used)

    def clip(self, max_norm: float) -> float:
        return self.owned.clip(max_norm)

    def step(self) -> None:
        self.optimizer.step()
        for s, data in zip(self.owned.slices, self.data):
            self.group.all_gather(s.data, out=data)

    def held(self) -> AbstractContextManager[list[Held]]:
        """Whole weights, and the state of the slices."""
        return nullcontext([*weights(self.model.named_parameters()), *self.owned.held()])

    def state_dict(self) -> dict[str, Array]:
        return self.owned.state_dict()

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        self.owned.load_state_dict(flat)

    def whole(self) -> AbstractContextManager[Module]:
        """The model with all its weights, to be read, saved or loaded: as it is, in this stage."""
        return nullcontext(self.model)


class Zero2:
    """Stage 2: each rank keeps the gradient and the optimizer state of its slices.  A `Strategy`.

    Where ranks have unequal rows, say so before backward: `announce(rows)`. Inside `no_sync` the
    complete gradient is kept, for nothing may be sent.
    """

    def __init__(
        self,
        model: Module,
        group: Group,
        make_optimizer: MakeOptimizer,
        bucket_bytes: float = BUCKET_BYTES,
    ) -> None:
        """bucket_bytes: how much gradient is gathered up before it is sent.  Collective."""
        give_all_the_weights_of_rank_0(model, group)
        self.model, self.group = model, group
        last_first = reversed(trainable(model))  # as backward comes by them
        flats = flats_of(last_first, group.size, bucket_bytes)
        self.data = [_moved_into_one(flat, group) for flat in flats]
        owns = [data[group.rank] for data in self.data]
        slices = [
            Slice(flat, group.rank, own, array_module(own).zeros_like(own))
            for flat, own in zip(flats, owns)
        ]
        hold("gradients", [s.grad for s in slices])
        self.owned = Owned(slices, group, make_optimizer)
        self.optimizer = self.owned.optimizer
        self.reducer = Reducer(slices, group)

    def zero_grad(self) -> None:
        self.reducer.zero_grad()

    def no_sync(self) -> AbstractContextManager[None]:
        return self.reducer.no_sync()

    def announce(self, rows: float) -> None:
        """Say, on all ranks and before backward, how many rows this rank's loss is over."""
        self.reducer.announce(rows)

    def sync_gradients(self, rows: float = 1.0) -> None:
        """Wait for the mean of the slices.  Raises: UsageError on rows that were not announced.

        Equal rows on all ranks need not be told.
        """
        self.reducer.finish(rows)

    def clip(self, max_norm: float) -> float:
        return self.owned.clip(max_norm)

    def step(self) -> None:
        self.optimizer.step()
        for s, data in zip(self.owned.slices, self.data):
            self.group.all_gather(s.data, out=data)

    def held(self) -> AbstractContextManager[list[Held]]:
        """Whole weights, and the state of the slices."""
        return nullcontext([*weights(self.model.named_parameters()), *self.owned.held()])

    def state_dict(self) -> dict[str, Array]:
        return self.owned.state_dict()

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        self.owned.load_state_dict(flat)

    def whole(self) -> AbstractContextManager[Module]:
        """As `Zero1.whole`."""
        return nullcontext(self.model)


def _moved_into_one(flat: Flat, group: Group) -> Array:
    """An array [p, k] with the parameters, which from now on are views of it."""
    array = flat.from_group(group)
    hold("weights", array)
    flat.fill(array)
    for name, x in flat.parameters.items():
        x.data = flat.view(array, name)
    return array
