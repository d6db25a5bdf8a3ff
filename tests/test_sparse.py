import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.sparse import RowGradient, values

N, D = 7, 3


def some(seed, count=5, dtype=np.float64):
    """Ids with repetitions, and rows of small integers, whose sums are exact in any order."""
    dice = np.random.default_rng(seed)
    return dice.integers(0, N, count), dice.integers(-9, 9, (count, D)).astype(dtype)


def one_hot(ids, rows):
    """What the gradient is: for each row of the table, the sum of those that picked it."""
    return np.eye(N, dtype=rows.dtype)[ids].T @ rows


def test_sums_stay_rows_until_an_array_comes():
    a, b = (RowGradient.of(*some(seed), (N, D)) for seed in (1, 2))
    whole = one_hot(*some(1)) + one_hot(*some(2))
    assert isinstance(a + b, RowGradient) and ((a + b).dense() == whole).all()
    assert len((a + b).ids) == len({*a.ids.tolist(), *b.ids.tolist()})
    array = one_hot(*some(2))
    for total in (a + array, array + a):
        assert isinstance(total, np.ndarray) and (total == whole).all()
    assert (array == one_hot(*some(2))).all() and (a.dense() == one_hot(*some(1))).all()
    assert a.add_to(array) is array and (array == whole).all()
    assert (a.add_to(b).dense() == whole).all()


def test_scaling_changes_the_rows_in_place():
    g = RowGradient.of(*some(3), (N, D))
    before, rows = g.dense(), g.rows
    g *= 2
    assert g.rows is rows and (g.dense() == 2 * before).all()
    assert values(g) is rows and values(before) is before


def test_it_describes_itself_as_an_array_would():
    g = RowGradient.of(np.array([4, 1, 4]), np.ones((3, D), np.float32), (N, D))
    assert (g.shape, g.ndim, g.dtype, g.base) == ((N, D), 2, np.float32, None)
    assert repr(g) == "RowGradient(float32[7, 3], 2 rows)"
    assert g.astype(np.float64).dtype == np.float64
    twin = g.copy()
    twin *= 2
    assert (g.rows == [[1] * D, [2] * D]).all()


def test_rows_and_tables_that_do_not_fit_are_named():
    with pytest.raises(ShapeMismatch, match=r"int64\[2\] ids need rows of shape \[2, 3\]"):
        RowGradient(np.arange(2), np.ones((2, 4)), (N, D))
    with pytest.raises(ShapeMismatch, match="different tables"):
        RowGradient.of(*some(1), (N, D)) + RowGradient.of(*some(1), (N + 1, D))
