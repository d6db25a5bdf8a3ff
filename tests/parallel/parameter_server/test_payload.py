"""Values become messages and come back; what does not fit is named."""

import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.parallel.compress import Float16, Int8
from minipar.parallel.parameter_server.keys import shards_of
from minipar.parallel.parameter_server.payload import (
    code_of,
    counts_of,
    messages_of,
    not_finite,
    values_of,
)
from minipar.sparse import RowGradient
from tests.parallel.parameter_server.serving import Small

SHARD = shards_of(Small(), 1)[0]
X, Y, TABLE = range(3)


def some_values():
    dice = np.random.default_rng(0)
    rows = RowGradient(np.array([2, 7]), dice.normal(size=(2, 2)), (12, 2))
    return {X: dice.normal(size=(3, 4)), Y: dice.normal(size=5), TABLE: rows}


def sent(values, code=None):
    return values_of(SHARD, counts_of(SHARD, values), messages_of(SHARD, values, code), code)


@pytest.mark.parametrize("given", [(), (X,), (Y, TABLE), (X, Y, TABLE)])
def test_what_is_given_comes_back(given):
    values = {i: v for i, v in some_values().items() if i in given}
    back = sent(values)
    assert back.keys() == values.keys()
    for i, value in values.items():
        if i == TABLE:
            assert (back[i].ids == value.ids).all()
            assert (back[i].rows == value.rows).all()
        else:
            assert (back[i] == value).all()


@pytest.mark.parametrize(("code", "most"), [(Float16(), 1e-3), (Int8(), 2e-2)])
def test_compressed_values_come_back_nearly_and_rows_exactly(code, most):
    values, back = some_values(), sent(some_values(), code)
    for i in (X, Y):
        assert back[i].dtype == np.float64
        assert 0 < abs(back[i] - values[i]).max() < most
    assert (back[TABLE].rows == values[TABLE].rows).all()
    nbytes = sum(m.nbytes for m in messages_of(SHARD, {X: np.ones((3, 4))}, Float16()))
    assert nbytes == 24


def test_rows_with_the_same_id_are_added_up_whatever_their_order():
    counts = [0, 0, 3]
    rows = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        ids = np.array([4, 3, 4])[order]
        found = values_of(SHARD, counts, [ids, rows[order]])[TABLE]
        assert found.ids.tolist() == [3, 4]
        assert found.rows.tolist() == [[10.0, 20.0], [101.0, 202.0]]


IDS, ROWS = np.array([0, 1]), np.zeros((2, 2))


@pytest.mark.parametrize(
    ("counts", "messages", "kind", "says"),
    [
        ([3, 5], [np.zeros(17)], UsageError, "unknown key: 2 keys were named, this server has 3"),
        ([3, 5, 0], [np.zeros(16)], ShapeMismatch, r"x and 1 more came as float64\[16\]"),
        ([3, 0, 0], [np.zeros(12, "f")], ShapeMismatch, r"x came as float32\[12\]"),
        ([2, 0, 0], [np.zeros(8)], ShapeMismatch, "x: 2 rows were announced, expected 3"),
        ([3, 0, 0], [], UsageError, "x was announced, but did not come"),
        ([0, 5, 0], [np.zeros(5), np.zeros(1)], UsageError, "more arrays came"),
        ([0, 0, 2], [IDS + 11, ROWS], UsageError, r"table.weight: the ids run from 11 to 12"),
        ([0, 0, 2], [IDS - 1, ROWS], UsageError, r"table.weight: the ids run from -1 to 0"),
        ([0, 0, 2], [IDS, ROWS[:, :1]], ShapeMismatch, r"table.weight: 2 ids came with rows"),
        ([0, 0, 2], [IDS, ROWS[:1]], ShapeMismatch, r"table.weight: 2 ids came with rows"),
        ([0, 0, 2], [IDS * 1.0, ROWS], ShapeMismatch, r"table.weight: ids are int64"),
    ],
)
def test_what_does_not_fit_is_named(counts, messages, kind, says):
    with pytest.raises(kind, match=says):
        values_of(SHARD, counts, messages)


def test_there_are_three_codes():
    assert code_of(0) is None
    with pytest.raises(UsageError, match="no code 3; there are none, float16, int8"):
        code_of(3)


def test_what_is_not_finite_is_found_and_what_only_adds_up_to_infinity_is_not():
    values = some_values()
    assert not_finite(values) is None
    values[X][...] = 1e308
    assert not_finite(values) is None
    for bad in (np.nan, np.inf, -np.inf):
        values = some_values()
        values[TABLE].rows[1, 1] = bad
        assert not_finite(values) == TABLE
