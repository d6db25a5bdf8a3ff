import numpy as np
import pytest

from minipar.segments import sum_by_id, sum_to_table
from tests.strict_cupy import counts

N, D = 7, 3


def some(count, dtype=np.float64):
    """Ids with repetitions, and rows of small integers, whose sums are exact in any order."""
    dice = np.random.default_rng(count)
    return dice.integers(1, N - 1, count), dice.integers(-9, 9, (count, D)).astype(dtype)


def one_hot(ids, rows):
    """For each of the N ids the sum of its rows."""
    return np.eye(N, dtype=rows.dtype)[ids].T @ rows


@pytest.fixture(params=["numpy", "cupy"])
def xp(request, cupy):
    return np if request.param == "numpy" else cupy


def host(x):
    return x if isinstance(x, np.ndarray) else x.get()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 64, 200])
def test_rows_that_share_an_id_are_added_up(xp, count):
    ids, rows = some(count)
    there = xp.asarray(ids), xp.asarray(rows)
    found, sums = map(host, sum_by_id(*there))
    assert found.tolist() == sorted(set(ids.tolist()))
    assert (one_hot(found, sums) == one_hot(ids, rows)).all()
    counts.clear()
    table = sum_to_table(*there, N)
    assert not counts.total()  # nobody waits
    assert (host(table) == one_hot(ids, rows)).all()
    assert (host(there[1]) == rows).all() and table.dtype == rows.dtype


def test_rows_may_be_single_numbers(xp):
    ids, rows = some(20)
    for total in (sum_to_table(xp.asarray(ids), xp.asarray(rows[:, 0]), N),):
        assert (host(total) == one_hot(ids, rows)[:, 0]).all()


def test_a_run_is_not_disturbed_by_its_neighbours(xp):
    """Differences of a running sum would lose the ones, and make the last row nan."""
    ids = xp.asarray(np.array([2, 0, 1, 2, 3]))
    rows = xp.asarray(np.array([[1e30], [1], [-1e30], [1e30], [np.inf]], np.float32))
    table = host(sum_to_table(ids, rows, 5))
    assert table[:, 0].tolist() == [1, np.float32(-1e30), np.float32(2e30), np.inf, 0]


def test_many_halves_are_added_up_in_more_than_half_precision(xp):
    ids, rows = xp.zeros(4096, int), xp.ones((4096, 2), np.float16)  # from 2048 on, 1 is lost
    _, sums = sum_by_id(ids, rows)
    table = sum_to_table(ids, rows, 2)
    assert sums.dtype == table.dtype == np.float16
    assert host(sums).tolist() == [[4096, 4096]] and host(table).tolist() == [[4096, 4096], [0, 0]]
