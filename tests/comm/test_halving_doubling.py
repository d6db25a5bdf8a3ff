"""Who goes on and who stands by; who swaps what. Results and costs are in test_algorithms."""

import numpy as np
import pytest

from minipar import run
from minipar.comm.halving_doubling import stands_by
from minipar.events import recording


class Size:
    def __init__(self, p):
        self.size = p


@pytest.mark.parametrize(
    ("p", "standing"),
    [(1, []), (2, []), (3, [1]), (4, []), (5, [1]), (6, [1, 3]), (7, [1, 3, 5]), (8, []), (9, [1])],
)
def test_who_stands_by(p, standing):
    assert [r for r in range(p) if stands_by(Size(p), r)] == standing


def messages(p, n, op="all_reduce"):
    """[(receiver, numbers), ...] that left each rank, in order."""

    def work(group):
        with recording() as log:
            getattr(group, op)(np.zeros(n), algorithm="halving_doubling")
        return [(event.peer, event.nbytes // 8) for event in log]

    return run(work, p)


def test_eight_ranks_halve_and_double():
    for rank, sent in enumerate(messages(8, 80)):
        out = [(rank ^ 4, 40), (rank ^ 2, 20), (rank ^ 1, 10)]
        assert sent == out + [(peer, n) for peer, n in reversed(out)]


def test_of_three_ranks_one_is_folded_into_its_neighbour():
    zero, one, two = messages(3, 8)
    assert one == [(0, 4), (0, 4)]  # lower half against upper, then the summed upper half
    assert zero == [(1, 4), (2, 4), (2, 4), (1, 8)]  # ... halving, doubling, the result
    assert two == [(0, 4), (0, 4)]


def test_a_rank_that_goes_on_for_two_sums_two_pieces():
    zero, one, two = messages(3, 9, "reduce_scatter")
    assert zero == [(1, 5), (2, 3), (1, 3)]  # sums pieces 0 and 1, and hands on piece 1
    assert two == [(0, 6)]
    assert one == [(0, 4), (0, 5)]
