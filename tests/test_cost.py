"""The formulas at values worked out by hand; tests/comm/test_collectives.py counts messages."""

import pytest

from minipar import cost


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


def test_seconds():
    assert cost.Cost(2, 100, 50).seconds(alpha=1, beta=0.1, gamma=0.01) == pytest.approx(12.5)
