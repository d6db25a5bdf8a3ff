"""Whether replicas are what they should be, the same: in form when they begin, in bits later.

    form   name, shape, dtype and trainable or frozen of each parameter, in order
    bits   a checksum of each parameter, 4 bytes for the wire however large it is

Ranks whose parameters stand in another order would add up gradients of different things. If the
shapes fit, nobody would notice but the loss. So the forms are compared once, at the start. And
replicas that begin equal and get equal gradients stay equal to the last bit; one that does not
(memory that failed, an update on one rank only) is found by its bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minipar.array import to_numpy
from minipar.comm.group import Group
from minipar.errors import ReplicasDiffer
from minipar.nn import Module
from minipar.tensor import Tensor

Named = Sequence[tuple[str, Tensor]]


def check_same_form(model: Module, group: Group) -> None:
    """Collective.  Raises: ReplicasDiffer on all ranks, with the first parameter that differs.

    Cost: a broadcast of 8 bytes, one of some 50 bytes for each parameter, an all_gather of 8 bytes.
    """
    own = [_form(name, x) for name, x in model.named_parameters()]
    forms = _text_of_rank_0("\n".join(own), group).split("\n")
    padded = [*own, *[""] * len(forms)]
    first = next((i for i, form in enumerate(forms) if form != padded[i]), -1)
    if first < 0 and len(own) > len(forms):
        first = len(forms)
    firsts = group.all_gather(np.array(first))
    others = [r for r in range(group.size) if firsts[r] >= 0]
    if not others:
        return
    n = int(firsts[others].min())
    there = forms[n] if n < len(forms) else "nothing"
    here = f" Here it is {padded[n] or 'nothing'}." if first == n else ""
    raise ReplicasDiffer(
        f"rank {group.rank}/{group.size}: parameter {n} is {there} on rank 0 and something else on "
        f"{ranks_named(r for r in others if firsts[r] == n)}.{here} All ranks must build the same "
        "model, with its parameters in the same order."
    )


def check_same_bits(named: Named, step: int, group: Group) -> None:
    """Collective.  Raises: ReplicasDiffer on all ranks, with the first parameter that differs.

    step: for the message.  Cost: reading all parameters, an all_gather of 4 bytes for each.
    """
    sums = group.all_gather(np.array([_checksum(x) for _, x in named], np.uint32))
    differs = sums != sums[0]  # [p, parameters], the same on all ranks
    if not differs.any():
        return
    n = int(differs.any(axis=0).argmax())
    others = ranks_named(np.flatnonzero(differs[:, n]))
    raise ReplicasDiffer(
        f"rank {group.rank}/{group.size}: after step {step} the replicas are not the same: "
        f"{named[n][0]} has other bits on {others} than on rank 0. Was a parameter changed on some "
        "ranks only, or a step made without sync_gradients()?"
    )


def ranks_named(ranks: Iterable[Any]) -> str:
    """rank 1;  ranks 1, 2"""
    found = [str(r) for r in ranks]
    return f"rank{'s' * (len(found) != 1)} {', '.join(found)}"


def _form(name: str, x: Tensor) -> str:
    return f"{name} {x.dtype}{list(x.shape)}{'' if x.requires_grad else ', frozen'}"


def _text_of_rank_0(text: str, group: Group) -> str:
    raw = np.frombuffer(text.encode(), np.uint8)
    length = int(group.broadcast(np.array(len(raw))))
    return group.broadcast(np.resize(raw, length)).tobytes().decode()


def _checksum(x: Tensor) -> int:
    return zlib.crc32(np.ascontiguousarray(to_numpy(x.data)).reshape(-1).view(np.uint8).data)
