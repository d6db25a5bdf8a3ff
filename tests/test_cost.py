"""The formulas at values worked out by hand, and as text; test_algorithms counts messages."""

import math
import re

import pytest

from minipar import cost
from minipar.comm.algorithms import ALGORITHMS


def test_ring_all_reduce_of_four():
    """Two rounds of 3 steps, each with a quarter of 800 bytes; only the first round adds."""
    assert cost.ring_all_reduce(4, 800) == (6, 1200, 600)


def test_one_rank_sends_nothing():
    for formula in (cost.ring_all_reduce, cost.ring_all_gather, cost.tree_broadcast):
        assert formula(1, 800) == (0, 0, 0)
    assert cost.dissemination_barrier(1) == (0, 0, 0)


@pytest.mark.parametrize(("p", "rounds"), [(2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4)])
def test_rounds_are_the_logarithm_rounded_up(p, rounds):
    assert cost.dissemination_barrier(p).messages == rounds
    assert cost.tree_broadcast(p, 10) == (rounds, 10 * rounds, 0)


def test_halving_and_doubling_of_eight_and_of_six():
    """8: half, a quarter, an eighth, and back. 6: two ranks are folded in first and out last."""
    assert cost.halving_doubling_all_reduce(8, 800) == (6, 1400, 700)
    assert cost.halving_doubling_all_reduce(6, 800) == (4 + 3, 1200 + 1600, 600 + 400)


def read(formula, p, n, alpha, beta, gamma):
    """The value of a formula as it stands in a docstring, worked out from the text."""
    q = 2 ** math.floor(math.log2(p))
    m = sum(min(2**i, p - q) for i in range(int(math.log2(q))))
    letters = {"p": p, "n": n, "q": q, "m": m, "k": math.ceil(math.log2(p)), "log2": math.log2}
    letters |= {"α": alpha, "β": beta, "γ": gamma}
    text = formula.replace("[p>q]", "(p>q)").replace("·", "*")
    text = re.sub(r"(\d)(?=[a-zα-γ(])(?<!log2)", r"\1*", text)
    return eval(text, letters)  # our own docstring


@pytest.mark.parametrize("p", range(1, 18))
def test_each_docstring_is_the_formula(p):
    for op, known in ALGORITHMS.items():
        for algorithm in known:
            text = getattr(cost, f"{algorithm}_{op}").__doc__
            found = cost.of(op, algorithm, p, 1000).seconds(3.0, 0.5, 0.01)
            assert found == pytest.approx(read(text, p, 1000, 3.0, 0.5, 0.01)), text


def test_seconds():
    assert cost.Cost(2, 100, 50).seconds(alpha=1, beta=0.1, gamma=0.01) == pytest.approx(12.5)


@pytest.mark.parametrize("p", [1, 2, 3, 64])
def test_the_docstrings_of_sharding_are_the_formulas(p):
    """And data parallel is stage 0: on one rank nothing is saved and nothing sent."""
    letters = {
        "p": p,
        "n": 1000,
        "k": 3,
        "r": 70,
        "u": 80,
        "t": 30,
        "b": 90,
        "m": 4,
        "w": 60,
        "g": 3,
    }
    names = [name for name in vars(cost) if re.match(r"zero\d", name)]
    assert len(names) == 11
    for name in names:
        formula = getattr(cost, name)
        inner = formula.__code__.co_varnames[: formula.__code__.co_argcount]
        text = re.sub(r"(\d)(?=[a-z(])", r"\1*", formula.__doc__.replace("·", "*"))
        text = text.replace(")n", ")*n")
        expected = eval(text, dict(letters))  # our own docstring
        assert formula(*(letters[letter] for letter in inner)) == pytest.approx(expected), name
    if p == 1:
        assert {formula(1, 1000) for formula in (cost.zero1_sent, cost.zero3_sent)} == {0}
        assert cost.zero3_kept(1, 1000, 3) == cost.zero0_kept(1, 1000, 3)


def test_the_example_of_the_paper():
    """Figure 1 of Rajbhandari et al. 2020: 7.5 billion parameters of 16 bits, K = 12, 64 ranks."""
    kept = (cost.zero0_kept, cost.zero1_kept, cost.zero2_kept, cost.zero3_kept)
    assert [round(f(64, 2 * 7.5, 12 / 2), 1) for f in kept] == [120, 31.4, 16.6, 1.9]


@pytest.mark.parametrize("s", [1, 4, 8])
def test_the_docstrings_of_schedules_are_the_formulas(s):
    """The simulator is held against them in tests/parallel/test_schedule_time.py."""
    letters = {"s": s, "m": 6, "v": 3, "i": s // 2, "f": 1.5, "b": 2, "w": 0.5}
    names = [name for name in vars(cost) if name.endswith(("_bubble", "_stored"))]
    assert len(names) == 11
    for name in names:
        formula = getattr(cost, name)
        inner = formula.__code__.co_varnames[: formula.__code__.co_argcount]
        expected = eval(formula.__doc__.replace("·", "*"), dict(letters))  # our own docstring
        assert formula(*(letters[letter] for letter in inner)) == pytest.approx(expected), name


def test_the_zero_bubble_of_the_paper():
    """Table 2 of Qi et al. 2023: (p-1)(F+B+W) for 1F1B, (p-1)(F+B-W) for ZB-H1."""
    for s, m, f, b, w in ((4, 8, 1, 1, 1), (8, 8, 2, 2, 1), (3, 30, 1, 1.5, 0.5)):
        work = m * (f + b + w)
        for bubble, idle in (
            (cost.one_f_one_b_bubble(s, m), (s - 1) * (f + b + w)),
            (cost.zero_bubble_bubble(s, m, f, b, w), (s - 1) * (f + b - w)),
        ):
            assert bubble == pytest.approx(idle / (work + idle))


@pytest.mark.parametrize("p", [1, 2, 8])
def test_the_docstrings_of_activations_and_pipelines_are_the_formulas(p):
    letters = {"p": p, "t": 64, "d": 32, "h": 4, "s": 3, "m": 5, "v": 2, "x": 700}
    letters |= {"label": 9, "w": 11}
    for name in ("block_numbers", "sequence_block_numbers", "pipeline_sent"):
        formula = getattr(cost, name)
        inner = formula.__code__.co_varnames[: formula.__code__.co_argcount]
        text = formula.__doc__.replace("·", "*").replace("2(", "2*(")
        expected = eval(text, dict(letters))  # our own docstring
        assert formula(*(letters[letter] for letter in inner)) == pytest.approx(expected), name
