r"""Where a model is cut into the stages of a pipeline, and what of it a rank holds.

    pieces   [ embedding | block | block | block | block | head ]        cuts  (0, 2, 4, 6)
    parts         part 0         |    part 1     |    part 2

The slowest part sets the pace, so the best cut is the one whose most expensive part is cheapest.
That is found exactly, part by part: if `cost[k][n]` is what the first n pieces cost when they are
cut into k parts in the best way, then

    cost[k][n] = min over i < n of max(cost[k-1][i], cost of pieces i .. n-1)

A parameter keeps the name that it has in the whole model. One that pieces of several stages use is
on each of them; the first is its *owner*, which has its optimizer state, and the others borrow it.

Letters: n pieces, k parts, s stages; part number i lies on rank i modulo s.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from minipar.array import Array
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.nn import Module, chain
from minipar.parallel.parcel import mapped
from minipar.parallel.passes import Loss, Part
from minipar.parallel.pipeline import backward_through
from minipar.random import Draw
from minipar.tensor import Tensor


def pieces_of(model: Any) -> list[Module]:
    """Raises: UsageError if the model does not say of what it is made."""
    if not hasattr(model, "pieces"):
        raise UsageError(
            f"{type(model).__name__} cannot be cut into stages: give it a method pieces() that "
            "returns its parts in order, each called as piece(x, draw) (see minipar.nn.Piece), or "
            "build it as minipar.nn.Sequential."
        )
    return list(model.pieces())


def balanced(costs: Sequence[float], k: int) -> list[int]:
    """Cuts of n pieces into k parts, none empty, so that the most expensive one costs least.

    Returns: k + 1 numbers from 0 to n; part i is pieces[cuts[i] : cuts[i + 1]].
    Cost: O(k·n²).  Raises: UsageError if there are fewer pieces than parts.
    """
    n = len(costs)
    if not 1 <= k <= n:
        raise UsageError(
            f"{n} pieces cannot be cut into {k} parts, of which each needs one at least: use fewer "
            "stages (or chunks), or a model with more layers."
        )
    upto = [0.0, *accumulate(costs)]
    best = [upto[:]]  # best[j][i]: the first i pieces in j + 1 parts
    last = [[0] * (n + 1)]  # where the last of these parts begins
    for j in range(1, k):
        best.append([np.inf] * (n + 1))
        last.append([0] * (n + 1))
        for stop in range(j + 1, n + 1):
            for start in range(j, stop):
                cost = max(best[j - 1][start], upto[stop] - upto[start])
                if cost < best[j][stop]:
                    best[j][stop], last[j][stop] = cost, start
    cuts = [n]
    for j in reversed(range(k)):
        cuts.append(last[j][cuts[-1]])
    return cuts[::-1]


def bytes_of(pieces: Sequence[Module]) -> list[float]:
    """What each piece's parameters take; one that is shared counts in each."""
    return [sum(x.data.nbytes for x in piece.parameters()) for piece in pieces]


def seconds_of(model: Module, part: Part, loss: Loss, repeats: int = 3) -> list[float]:
    """What each piece takes, forward and backward, at best of some tries; the model stays as it is.

    part: a micro-batch as the pipeline will have them.
    """
    pieces = pieces_of(copy.deepcopy(model))
    tries = [timed(pieces, part, loss) for _ in range(repeats)]
    return np.min(tries, axis=0).tolist()


def timed(pieces: Sequence[Module], part: Part, loss: Loss) -> Array:
    """What each piece takes, forward and backward, in seconds; leaves gradients on the weights."""
    times, x, graphs = np.zeros(len(pieces)), part.x, []
    for i, piece in enumerate(pieces):
        begin = time.perf_counter()
        y = piece(x, part.draw)
        if i == len(pieces) - 1:
            y = loss(y, part.y)
        times[i] += time.perf_counter() - begin
        graphs.append((x, y))
        x = mapped(lambda t: Tensor(t.data, t.requires_grad) if isinstance(t, Tensor) else t, y)
    dy = None
    for i, (x, y) in reversed(list(enumerate(graphs))):
        begin = time.perf_counter()
        backward_through(y, dy)
        times[i] += time.perf_counter() - begin
        dy = mapped(lambda t: t.grad if isinstance(t, Tensor) else None, x)
    return times


def users_of(model: Module, cuts: Sequence[int], s: int) -> dict[str, list[int]]:
    """The stages that use each parameter of the model, in order; the first one owns it.

    Raises: UsageError if the model's pieces leave out a parameter, or have one of their own.
    """
    stages: dict[int, set[int]] = {}
    pieces = pieces_of(model)
    for part, (start, stop) in enumerate(pairwise(cuts)):
        for piece in pieces[start:stop]:
            for x in piece.parameters():
                stages.setdefault(id(x), set()).add(part % s)
    users = {name: sorted(stages.pop(id(x), ())) for name, x in model.named_parameters()}
    left_out = [name for name, ranks in users.items() if not ranks]
    if left_out or stages:
        what = f"{left_out[0]} is in none" if left_out else "one holds a parameter of its own"
        raise UsageError(
            f"{type(model).__name__}.pieces(): of the pieces, {what}. A piece names all modules "
            "that it computes with, Piece(function, self.token, self.norm), and no others."
        )
    return users


class Stage(Module):
    """What of a model one rank has; its parameters, those that it owns, are named as in the model.

    So a stage is trained like a model: by an optimizer, or by a data-parallel strategy together
    with the equal stages of other pipelines.
    """

    def __init__(self, model: Module, group: Group, cuts: Sequence[int]) -> None:
        """cuts: as `balanced` gives them, for as many parts on each rank.  Raises: UsageError."""
        pieces, s = pieces_of(model), group.size
        parts, rest = divmod(len(cuts) - 1, s)
        ends = (cuts[0], cuts[-1]) == (0, len(pieces))
        if parts < 1 or rest or not ends or any(a >= b for a, b in pairwise(cuts)):
            raise UsageError(
                f"cuts {list(cuts)}: there are {len(pieces)} pieces and {s} stages; the cuts rise "
                f"from 0 to {len(pieces)}, and make {s} parts, or a multiple of it."
            )
        mine = list(pairwise(cuts))[group.rank :: s]
        self.chunks = [pieces[start:stop] for start, stop in mine]
        self.users = users_of(model, cuts, s)
        named = dict(model.named_parameters())
        here = {name: named[name] for name, ranks in self.users.items() if group.rank in ranks}
        self.owned = {n: x for n, x in here.items() if self.users[n][0] == group.rank}
        self.borrowed = {n: x for n, x in here.items() if n not in self.owned}
        used = [{id(x) for piece in chunk for x in piece.parameters()} for chunk in self.chunks]
        self.late = {
            name
            for name, x in self.owned.items()
            if len(self.users[name]) > 1 or sum(id(x) in ids for ids in used) > 1
        }  # whose gradient is not complete when the last backward of a chunk is over

    def __call__(self, c: int, x: Any, draw: Draw | None = None) -> Any:
        """What the pieces of chunk c make of x."""
        return chain(self.chunks[c], x, draw)

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        return iter([(f"{prefix}.{n}" if prefix else n, x) for n, x in self.owned.items()])
