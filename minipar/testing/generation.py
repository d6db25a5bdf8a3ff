"""The small text on which writing in parallel is held against one rank.

A GPT in float64 with a vocabulary that the ranks cannot share evenly writes beyond its block, so
that windows move. The definition is one rank that remembers nothing: for each token it computes the
logits of the whole window. Compared are all logits from which a token is drawn, and the tokens.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minipar.array import Array
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.models import GPT, write
from minipar.models.generate import chance, choose
from minipar.models.reader import Pick, window
from minipar.nn import ONE_RANK
from minipar.parallel.generation import StageReader
from minipar.parallel.mesh import Mesh
from minipar.parallel.tensor_layers import TensorKit
from minipar.random import Init, normal
from minipar.tensor import no_grad
from minipar.testing.strategies import PATIENCE_S, Difference

VOCAB, BLOCK = 17, 12
PROMPT, COUNT = (3, 1, 4, 1, 5), 20


class Case(NamedTuple):
    name: str
    temperature: float = 1.0
    top_k: int | None = None


CASES = (Case("drawn"), Case("greedy", 0.0), Case("drawn from the best 3", 1.5, 3))


def gpt(**options: object) -> GPT:
    """24 heads and 2 layers: for 1, 2, 3, 4, 6, ... ranks, or for up to 4 stages."""
    return GPT(Init(0, np.float64), VOCAB, BLOCK, layers=2, d=24, heads=24, **options)  # type: ignore


def weights() -> dict[str, Array]:
    """So large that what is expected depends on what was read."""
    state = gpt().state_dict()
    return {name: a + 0.3 * normal(1, name, a.shape) for name, a in state.items()}


def written_alone(case: Case) -> tuple[list[int], list[Array]]:
    """The tokens, and the logits of each, from one rank without a cache."""
    model, text, seen = gpt(), list(PROMPT), []
    model.load_state_dict(weights())
    with no_grad():
        for _ in range(COUNT):
            n = len(text)
            seen.append(model(np.array([text[window(n, BLOCK) :]])).data[0, -1])
            text.append(choose(seen[-1], chance(0, n), case.temperature, case.top_k))
    return text[len(PROMPT) :], seen


class Watched(StageReader):
    """Keeps the logits that it has seen: on the last stage all, on the others none."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore
        self.seen: list[Array] = []

    def next(self, ids: Array, pick: Pick) -> int:
        def watched(logits: np.ndarray) -> int:
            self.seen.append(logits)
            return pick(logits)

        return super().next(ids, watched)


def written(group: Group, pp: int, tp: int) -> list[tuple[list[int], list[Array]]]:
    """The same of all cases from one rank of pp · tp."""
    mesh = Mesh(group, pp=pp, tp=tp)
    model = gpt(kit=TensorKit(mesh.tp) if tp > 1 else ONE_RANK)
    reader, found = Watched(model, mesh, weights()), []
    for case in CASES:
        reader.seen = []
        tokens = list(write(reader, PROMPT, COUNT, 0, case.temperature, case.top_k))
        found.append((tokens, reader.seen))
    return found


def difference(p: int, backend: str, axis: str = "tp") -> Difference:
    """How far the logits of p ranks along an axis are from one rank's; infinite if a token is.

    axis: "tp" or "pp".  Raises: what the ranks raise.
    """
    layout = (p, 1) if axis == "pp" else (1, p)
    everything = run(written, p, args=layout, backend=backend, timeout_s=PATIENCE_S)
    found = Difference(0.0, "")
    for case, ranks in zip(CASES, zip(*everything)):
        expected, logits = written_alone(case)
        for rank, (tokens, seen) in enumerate(ranks):
            if wrong := [n for n in range(COUNT) if tokens[n] != expected[n]]:
                return Difference(math.inf, f"{case.name}: token {wrong[0]} on rank {rank}")
            error = max((float(abs(a - b).max()) for a, b in zip(seen, logits)), default=0.0)
            if not error <= found.error:
                found = Difference(error, f"{case.name}: logits on rank {rank}")
    return found
