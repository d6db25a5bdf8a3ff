"""PowerSGD: a matrix of its rank comes through whole, others in time; what it costs."""

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.errors import UsageError
from minipar.events import recording
from minipar.parallel.compress import PowerSGD

SHAPES = ((40, 30), (30,), (3, 3, 8, 16), (4, 2))  # the last would not get smaller


def low_rank(seed, n, m, rank):
    dice = np.random.default_rng(seed)
    return dice.normal(size=(n, rank)) @ dice.normal(size=(rank, m))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_sum_of_its_rank_is_exact_after_two_rounds_and_vectors_always_are(p):
    """Each rank's part has rank 1, so with 3 ranks the sum has rank 3."""

    def work(group):
        how = PowerSGD(rank=3)
        for _ in range(2):
            x = [low_rank(group.rank, 40, 30, 1), np.full(30, 2.0**group.rank)]
            how.errors = [np.zeros((40, 30))] if how.errors else []
            how.add_up(x, group)
        return x

    wanted = sum(low_rank(r, 40, 30, 1) for r in range(p))
    for matrix, vector in minipar.run(work, p):
        assert np.abs(matrix - wanted).max() < 1e-10
        assert (vector == 2**p - 1).all()


def test_what_was_sent_and_what_is_kept_add_up_to_all_gradients():
    def work(group):
        how, dice, given, sent = PowerSGD(1), np.random.default_rng(group.rank), 0, 0
        for _ in range(10):
            x = [dice.normal(size=(9, 8))]
            given = given + x[0]
            how.add_up(x, group)
            sent = sent + x[0]
        return given, sent, how.errors[0]

    ends = minipar.run(work, 3)
    given, kept = (sum(end[i] for end in ends) for i in (0, 2))
    for _, sent, _ in ends:
        assert np.abs(sent + kept - given).max() < 1e-10
        assert (sent == ends[0][1]).all()


def test_a_gradient_of_zeros_does_not_silence_it_for_good():
    def work(group):
        how = PowerSGD(1)
        how.add_up([np.zeros((9, 8))], group)
        x = [np.ones((9, 8))]
        for _ in range(3):
            x = [np.ones((9, 8))]
            how.add_up(x, group)
        return x[0]

    assert minipar.run(work, 1)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_bytes_are_those_of_the_formula(p, rank):
    def work(group):
        dice = np.random.default_rng(group.rank)
        x = [dice.normal(size=shape).astype("float32") for shape in SHAPES]
        with recording() as log:
            PowerSGD(rank).add_up(x, group)
        assert all(a.dtype == np.float32 for a in x)
        return sum(event.nbytes for event in log)

    assert sum(minipar.run(work, p)) / p == pytest.approx(cost.power_sgd_bytes(p, SHAPES, rank, 4))


def test_a_rank_is_at_least_1():
    with pytest.raises(UsageError, match="at least 1, not 0"):
        PowerSGD(0)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_columns_become_orthonormal_in_16_bits_too(dtype):
    """NumPy has no QR of float16."""

    def work(group):
        x = [low_rank(0, 40, 30, 1).astype(dtype)]
        for _ in range(2):
            how = PowerSGD(1)
            how.add_up(x, group)
        return x[0]

    (x,) = minipar.run(work, 1)
    assert x.dtype == dtype
    assert np.abs(x - low_rank(0, 40, 30, 1)).max() < 0.05
