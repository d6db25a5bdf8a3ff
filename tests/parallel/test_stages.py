"""The best cut is found, and each stage holds what it computes with."""

from itertools import combinations, pairwise

import numpy as np
import pytest

import minipar
from minipar.errors import UsageError
from minipar.models import GPT, ResNet
from minipar.nn import Linear, Module, Piece, Sequential
from minipar.ops import cross_entropy
from minipar.parallel.passes import Part
from minipar.parallel.stages import Stage, balanced, bytes_of, pieces_of, seconds_of, users_of
from minipar.random import Draw, Init
from minipar.tensor import Tensor


def by_brute_force(costs, k):
    """What the most expensive part costs in the best of all cuts."""
    n = len(costs)
    cuts = [(0, *inner, n) for inner in combinations(range(1, n), k - 1)]
    return min(max(sum(costs[a:b]) for a, b in pairwise(cut)) for cut in cuts)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_cuts_are_the_best_there_are(n):
    dice = np.random.default_rng(n)
    for costs in [*dice.integers(0, 9, (20, n)), *dice.exponential(size=(5, n))]:
        for k in range(1, n + 1):
            cuts = balanced(costs.tolist(), k)
            assert (cuts[0], cuts[-1], len(cuts)) == (0, n, k + 1)
            assert all(a < b for a, b in pairwise(cuts))
            most = max(costs[a:b].sum() for a, b in pairwise(cuts))
            assert most == pytest.approx(by_brute_force(costs, k))


def test_a_greedy_cut_would_be_worse():
    """A part that ends as soon as it has the mean, 5, gives 1 4 | 4 6, and nothing for the last."""
    assert balanced([1, 4, 4, 6], 3) == [0, 2, 3, 4]


@pytest.mark.parametrize("k", [0, 4])
def test_parts_are_not_empty(k):
    with pytest.raises(UsageError, match="3 pieces cannot be cut into"):
        balanced([1, 1, 1], k)


def test_bytes_count_a_shared_weight_in_each_piece():
    model = GPT(Init(), vocab=10, block=4, layers=1, d=8, heads=2)
    first, block, last = bytes_of(model.pieces())
    assert (first, last) == (4 * (10 * 8 + 4 * 8), 4 * (10 * 8 + 2 * 8))
    assert block == sum(x.data.nbytes for x in model.blocks[0].parameters())


def test_seconds_are_those_of_each_piece_and_leave_the_model_as_it_is():
    model = ResNet(Init(), 3, layers=(1, 1), width=8)
    before = model.state_dict()
    part = Part(np.ones((2, 16, 16, 3), np.float32), np.zeros(2, int), Draw(0, 0, range(2)), 1.0)
    seconds = seconds_of(model, part, cross_entropy, repeats=1)
    assert len(seconds) == len(model.pieces()) and min(seconds) > 0
    assert all((a == before[n]).all() for n, a in model.state_dict().items())
    assert all(x.grad is None for x in model.parameters())
    assert model.stem.norm.rows == frozenset()  # it has seen nothing


def test_a_slow_piece_is_seen():
    class Slow(Linear):
        def __call__(self, x):
            for _ in range(200):
                y = super().__call__(x)
            return y

    layers = [kind(Init() / n, 8, 8) for n, kind in enumerate([Linear, Slow, Linear])]
    x, y = Tensor(np.ones((4, 8), np.float32)), np.zeros(4, int)
    part = Part(x, y, Draw(0, 0, range(4)), 1.0)
    first, slow, last = seconds_of(Sequential(*layers), part, cross_entropy)
    assert slow > first + last


# -- what a stage holds -----------------------------------------------------------------------


def held(group, cuts):
    model = GPT(Init(), vocab=10, block=4, layers=3, d=8, heads=2)
    stage = Stage(model, group, cuts)
    chunks = [len(chunk) for chunk in stage.chunks]
    return chunks, list(stage.owned), list(stage.borrowed), stage


def test_names_are_those_of_the_model():
    names = [n for n, _ in GPT(Init(), 10, 4, 3, 8, 2).named_parameters()]
    found = minipar.run(held, 2, args=([0, 3, 5],))
    assert [chunks for chunks, *_ in found] == [[3], [2]]
    assert [borrowed for _, _, borrowed, _ in found] == [[], ["token.weight"]]
    assert sorted(found[0][1] + found[1][1]) == sorted(names)
    for _, owned, _, stage in found:
        assert [n for n, _ in stage.named_parameters()] == owned
        assert [n for n, _ in stage.named_parameters("a")] == [f"a.{n}" for n in owned]


def test_chunks_are_dealt_out_in_turn():
    found = minipar.run(held, 2, args=([0, 1, 2, 4, 5],))
    assert [chunks for chunks, *_ in found] == [[1, 2], [1, 1]]
    assert found[1][2] == ["token.weight"] and "blocks.2.norm1.weight" in found[0][1]


@pytest.mark.parametrize("cuts", [[0, 5], [0, 3], [0, 2, 2, 5, 5], [1, 3, 5], [0, 1, 2, 5], [5, 0]])
def test_cuts_must_fit(cuts):
    with pytest.raises(UsageError, match="5 pieces and 2 stages"):
        minipar.run(held, 2, args=(cuts,))


class Badly(Module):
    def __init__(self, *names):
        self.a, self.b = (Linear(Init() / n, 2, 2) for n in "ab")
        self.names = names

    def pieces(self):
        other = Linear(Init() / "c", 2, 2)
        return [Piece(lambda x, draw: x, *({"other": other, **vars(self)}[n] for n in self.names))]


@pytest.mark.parametrize(
    ("names", "said"), [("a", "b.weight is in none"), (("a", "b", "other"), "own")]
)
def test_pieces_that_are_not_the_model_are_refused(names, said):
    with pytest.raises(UsageError, match=said):
        users_of(Badly(*names), [0, 1], 1)


def test_a_model_without_pieces_is_told_what_to_do():
    with pytest.raises(UsageError, match="Linear cannot be cut into stages"):
        pieces_of(Linear(Init(), 2, 2))
