"""Lines through times that were made from known numbers."""

import numpy as np
import pytest

from minipar import cost
from minipar.bench import fit

SIZES = [8, 1024, 65536, 2**20, 2**24]


def test_known_alpha_beta_and_gamma_are_found_again():
    sent = {n: 5e-6 + n / 10e9 for n in SIZES}
    added = {n: 2e-6 + n / 20e9 for n in SIZES}
    found = fit.machine(sent, added)
    assert found[:3] == pytest.approx((5e-6, 1 / 10e9, 1 / 20e9))
    assert found.error < 1e-9


def test_small_sizes_count_as_much_as_large_ones():
    """Plain least squares answers with an α of many milliseconds here, to please 16 MB."""
    t = {n: (5e-6 + n / 10e9) * factor for n, factor in zip(SIZES, [1, 1.1, 0.9, 1.1, 0.9])}
    _, start = np.polyfit(list(t), list(t.values()), 1)
    assert abs(start - 5e-6) > 2e-6
    found = fit.line(t)
    assert found.start == pytest.approx(5e-6, rel=0.1)
    assert found.slope == pytest.approx(1 / 10e9, rel=0.15)
    assert 0.03 < found.error < 0.15


def test_the_error_is_the_root_of_the_mean_square_by_hand():
    """Nothing depends on n, but one of two times is twice the other: 4/3 is the best start."""
    start, slope, error = fit.line({1: 1.0, 2: 2.0, 3: 1.0})
    ones = np.array([1.0, 2.0, 1.0])
    n = np.array([1, 2, 3])
    assert error == pytest.approx(np.sqrt(np.mean((start + slope * n - ones) ** 2 / ones**2)))
    grid = [
        np.sum(((a + b * n - ones) / ones) ** 2)
        for a in np.linspace(0, 3, 61)
        for b in np.linspace(0, 1, 41)
    ]
    assert 3 * error**2 <= min(grid) + 1e-12


def test_nothing_is_negative_however_odd_the_times():
    faster_when_larger = fit.line({10: 2.0, 1000: 1.0})
    assert faster_when_larger.slope == 0 and 1 < faster_when_larger.start < 2
    through_zero = fit.line({10: 1.0, 1000: 200.0})
    assert through_zero.start == 0 and 0.1 < through_zero.slope < 0.2


def test_one_size_is_no_line():
    with pytest.raises(ValueError, match="at least 2 sizes, not 1"):
        fit.line({8: 1.0})


def test_predictions_are_the_formulas_and_a_message_for_send_recv():
    machine = fit.Machine(2.0, 0.5, 0.25, 0)
    ring = 2 * 3 * 2.0 + 1.5 * 800 * 0.5 + 0.75 * 800 * 0.25
    assert fit.predicted("all_reduce", "ring", 4, 800, machine) == ring
    assert fit.predicted("send_recv", "there_and_back", 4, 800, machine) == 2 + 400
    assert fit.predicted("barrier", "tree", 4, 0, machine) == (
        cost.tree_barrier(4).messages * machine.alpha
    )
