r"""What ZeRO sends in a step: gradients are summed up, and weights gathered, by how often.

    (p-1)/p · (Σ k·b  +  w·gathered)

    b, k      bytes of a bucket of gradients, and how often it goes in a step
    gathered  bytes of weights, once for stages 1 and 2; in stage 3 for each forward and backward
    w         what --precision makes of a number: weights go in 16 bits, gradients are summed in 32

A bucket goes once a step, and in the stages of a pipeline for each micro-batch. There the order of
buckets is fixed, and a bucket waits for those before it: with several chunks (interleaved) it may
wait for another chunk's, and takes in more than one micro-batch (`times_sent`).

Letters: p replicas, n bytes of a stage's parameters, m micro-batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from minipar import cost
from minipar.config import Config
from minipar.nn import Module
from minipar.parallel.buckets import lay_out
from minipar.parallel.schedule import named
from minipar.parallel.sharded import BUCKET_BYTES
from minipar.parallel.sharded_parameters import listed, split_parameters
from minipar.parallel.stages import pieces_of, users_of
from minipar.strategies import chunks_of
from minipar.tensor import Tensor
from minipar.trial import cuts_of


class Sent(NamedTuple):
    """Out of a rank in a step, the mean over the ranks."""

    nbytes: float
    messages: float


def owned(c: Config, model: Module, stage: int) -> list[Tensor]:
    """What a stage trains; tables with sparse gradients are as dense here as at the worst."""
    by_name = dict(model.named_parameters())
    users = {name: [0] for name in by_name}
    if c.pp > 1:
        users = users_of(model, cuts_of(c, model), c.pp)
    return [x for name, x in by_name.items() if x.requires_grad and users[name][0] == stage]


def zero_sent(c: Config, model: Module, stage: int, width: float) -> Sent:
    """Of a rank with this stage; width: w."""
    if c.zero > 1 and c.pp > 1:
        return _piped(c, model, stage, width)
    p, n = c.dp, _bytes(owned(c, model, stage))
    reduced = cost.zero1_sent(p, n) / 2
    if c.zero < 3:
        return Sent((1 + width) * reduced, 2 * (p - 1))
    units = split_parameters(model, listed(model))
    r, a = _bytes(x for _, x in units[-1]), c.accumulate
    gathered = a * (cost.zero3_sent(p, n, min(n, r)) - reduced)
    return Sent(reduced + width * gathered, (1 + 2 * a) * (p - 1) * len(units))


def _piped(c: Config, model: Module, stage: int, width: float) -> Sent:
    """Stages 2 and 3 in a stage of a pipeline, where each micro-batch sends."""
    p, m, trained = c.dp, c.micros, owned(c, model, stage)
    chunks, lent = _uses(c, model, stage)
    if c.zero == 2:
        layout = lay_out(trained, BUCKET_BYTES)
        buckets = [[trained[i] for i in layout.of_bucket(k)] for k in range(len(layout.buckets))]
        gathered, gathers = float(_bytes(trained)), len(buckets)
    else:  # a layer is a bucket, and what others use, which stays, the last one
        layers = _layers(c, model, stage, trained, lent)
        kept = [x for x in trained if id(x) in lent]
        buckets = [*layers[::-1], *([kept] if kept else [])]
        times = m * (3 if c.recompute else 2)
        gathered = times * sum(map(_bytes, layers)) + _bytes(kept)
        gathers = times * len(layers) + bool(kept)
    program = named(c.schedule, c.pp, m, chunks_of(c))[stage]
    backwards = [action.chunk for action in program if action.phase in "BW"]
    of = [set().union(*(chunks[id(x)] for x in bucket)) for bucket in buckets]
    late = [any(id(x) in lent for x in bucket) for bucket in buckets]
    times_of = times_sent(backwards, of, late)
    reduced = sum(k * _bytes(bucket) for k, bucket in zip(times_of, buckets))
    return Sent((p - 1) / p * (reduced + width * gathered), (sum(times_of) + gathers) * (p - 1))


def times_sent(
    backwards: Iterable[int], buckets: Sequence[Collection[int]], late: Sequence[bool]
) -> list[int]:
    """How often each bucket of a stage goes in a step (parallel/reducer.py).

    backwards: the chunk of each, in order.  buckets: the chunks whose gradients each takes.
    late:      whether it gets more when all backwards are over: from other stages.
    """
    missing, filled, sent = [set(of) for of in buckets], list(late), [0] * len(buckets)
    at = 0
    for chunk in backwards:
        for i, of in enumerate(buckets):
            if chunk in of:
                missing[i].discard(chunk)
                filled[i] = True
            while not missing[at]:
                missing[at], filled[at] = set(buckets[at]), late[at]
                sent[at] += 1
                at = (at + 1) % len(buckets)
    return [n + left for n, left in zip(sent, filled)]


def _uses(c: Config, model: Module, stage: int) -> tuple[dict[int, set[int]], set[int]]:
    """By id of a parameter: the chunks of the stage that use it; and which other stages use."""
    pieces, v = pieces_of(model), chunks_of(c)
    parts = list(pairwise(cuts_of(c, model)))
    chunks: dict[int, set[int]] = {}
    for chunk in range(v):
        start, stop = parts[chunk * c.pp + stage]
        for piece in pieces[start:stop]:
            for x in piece.parameters():
                chunks.setdefault(id(x), set()).add(chunk)
    by_name = dict(model.named_parameters())
    users = users_of(model, cuts_of(c, model), c.pp)
    lent = {id(by_name[name]) for name, stages in users.items() if len(stages) > 1}
    return chunks, lent | {x for x, of in chunks.items() if len(of) > 1}


def _layers(
    c: Config, model: Module, stage: int, trained: Sequence[Tensor], lent: Collection[int]
) -> list[list[Tensor]]:
    """Of each piece of the stage what it alone uses."""
    left = {id(x) for x in trained} - set(lent)
    layers, pieces = [], pieces_of(model)
    for start, stop in list(pairwise(cuts_of(c, model)))[stage :: c.pp]:
        for piece in pieces[start:stop]:
            own = [x for x in piece.parameters() if id(x) in left]
            left -= {id(x) for x in own}
            layers.append(own)
    return [own for own in layers if own]


def _bytes(parameters: Iterable[Tensor]) -> int:
    return sum(x.data.nbytes for x in parameters)
