r"""Writing with a model that is cut: each rank remembers what it computes itself.

                    stage 0                  stage 1
    tp 0    embedding, blocks 0 1  ──►  blocks 2 3, head  ┐   logits of all  ──►  token
            heads 0 1                   heads 0 1         │
    tp 1    embedding, blocks 0 1  ──►  blocks 2 3, head  ┘
            heads 2 3                   heads 2 3

      ▲                                                                             │
      └───────────────────────────  broadcast  ─────────────────────────────────────┘

A rank has a cache for the blocks of its stage, and in it the heads of its shards: p ranks remember
together what one would. For each token a stage sends one row of d numbers to the next; the ranks
that share layers add up as they do in training, and gather the logits; the last stage tells all
others what was drawn. Who draws needs no message: the chance belongs to the place in the text.

Only one stage works at a time. A pipeline lets a model write that no rank can hold, but no faster.

Letters: t new positions, d features.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.models import GPT, Reader
from minipar.models.reader import Pick, last_row
from minipar.parallel.flat import nothing
from minipar.parallel.mesh import Mesh
from minipar.parallel.sharding import own_state
from minipar.parallel.stages import balanced, bytes_of
from minipar.tensor import Tensor


class StageReader:
    """A stage of a GPT that reads a text; `write` takes it like a `Reader`.  All calls collective.

    The logits are the same bits on all ranks of the last stage, and so is the token everywhere.
    """

    def __init__(self, model: GPT, mesh: Mesh, weights: Mapping[str, Any]) -> None:
        """Takes what this rank needs of the weights; the rest of the model keeps no memory.

        model:   built with TensorKit(mesh.tp), or the kit of one rank if tp is 1.
        weights: of one rank, by name.  Raises: UsageError, ShapeMismatch.
        """
        pieces = model.pieces()
        cuts = list(pairwise(balanced(bytes_of(pieces), mesh.pp.size)))[mesh.pp.rank]
        here = {id(x) for piece in pieces[slice(*cuts)] for x in piece.parameters()}
        take(model, here, weights, mesh.tp)
        self.model, self.pp, self.block = model, mesh.pp, model.block
        self.reader = Reader(model, *cuts)

    @property
    def nbytes(self) -> int:
        """Of the caches of this rank."""
        return self.reader.nbytes

    def forget(self) -> None:
        self.reader.forget()

    def next(self, ids: Array, pick: Pick) -> int:
        """As `Reader.next`.  Cost: t·d numbers to the next stage, one token to all others."""
        pp, weight = self.pp, self.model.position.weight
        x = ids
        if pp.rank > 0:
            shape = (1, ids.shape[1], weight.shape[1])
            out = array_module(weight.data).empty(shape, weight.dtype)
            x = Tensor(pp.recv(pp.rank - 1, out=out))
        y, token = self.reader.read(x), 0
        if pp.rank < pp.size - 1:
            pp.send(y.data, pp.rank + 1)
        else:
            token = pick(last_row(self.model.output.whole(y)))
        return int(pp.broadcast(np.array(token), pp.size - 1))


def take(model: GPT, here: set[int], weights: Mapping[str, Any], tp: Group) -> None:
    """Give the parameters in `here` (by id) this rank's part of the weights, the others nothing."""
    named = dict(model.named_parameters())
    if missing := sorted(named.keys() ^ weights.keys()):
        raise UsageError(
            f"the model and the weights do not belong together: only one of them has {missing[0]}."
        )
    for x in named.values():
        xp = array_module(x.data)
        x.data = xp.empty(x.shape, x.dtype) if id(x) in here else nothing(x.data)
    own = own_state({name: weights[name] for name, x in named.items() if id(x) in here}, model, tp)
    model.load_state_dict(own, strict=False)
