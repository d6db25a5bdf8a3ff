"""The array module follows the arrays; CuPy is played by its stand-in."""

import sys
from collections import Counter

import numpy as np
import pytest

from minipar.array import (
    array_module,
    beside,
    describe,
    extremes,
    index_beside,
    is_array,
    number_beside,
    on_host,
    to_device,
    to_numpy,
)
from tests.strict_cupy import counts, ndarray

X = np.arange(6.0).reshape(2, 3)


def test_the_module_of_the_arrays(cupy):
    assert array_module(X) is np and array_module() is np
    assert array_module(cupy.zeros(1)) is cupy
    assert array_module(X, cupy.zeros(1)) is cupy


def test_what_is_an_array_and_where(cupy):
    assert is_array(X) and is_array(cupy.zeros(1))
    assert not any(map(is_array, ([1.0], 1.0, np.float64(1), None)))
    assert on_host(X) and not on_host(cupy.zeros(1))


def test_without_cupy(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert array_module(X) is np and not is_array(ndarray(1))


def test_to_host_memory(cupy):
    assert to_numpy(X) is X
    assert to_numpy(cupy.arange(3)).tolist() == [0, 1, 2]


def test_what_goes_beside_an_array(cupy):
    there = cupy.zeros(1)
    counts.clear()
    assert beside(X, X) is X and beside(there, there) is there
    assert beside([0, 1], X).tolist() == [0, 1]
    assert not counts.total()
    assert beside(X, there).tolist() == X.tolist() and beside([0, 1], there).dtype == np.int64
    assert counts["to_device"] == 2
    with pytest.raises(TypeError, match="Implicit"):
        beside(there, X)


def test_a_batch_is_sent_and_its_ids_stay(cupy):
    dense, ids = X.astype(np.float32), np.arange(3)
    (a, b), c = to_device(((dense, ids), dense > 2), cupy)
    assert isinstance(a, cupy.ndarray) and b is ids and isinstance(c, cupy.ndarray)
    assert to_device((dense, ids), np) == (dense, ids)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_number_takes_the_dtype_and_is_not_sent(cupy, dtype):
    for x in (X.astype(dtype), cupy.zeros(2, dtype)):
        counts.clear()
        number = number_beside(np.float64(0.5), x)
        assert isinstance(number, type(x)) and number.shape == () and number.dtype == dtype
        assert not counts.total() and number.item() == 0.5


def test_the_range_of_ids_is_read_at_once(cupy):
    ids = np.array([[3, -1], [7, 0]])
    there = cupy.asarray(ids)
    counts.clear()
    assert extremes(ids) == (-1, 7)
    assert counts == Counter()
    assert extremes(there) == (-1, 7)
    assert counts == Counter(to_host=1)


def test_an_index_from_the_host_is_checked_there(cupy):
    there = cupy.asarray(X)
    mixed = (slice(None), [0, 2], None, ..., 1)
    assert index_beside(mixed, X) is mixed
    parts = index_beside((np.array([1, -1]), [0, 2]), there)
    assert there[parts].tolist() == [X[1, 0], X[1, 2]]
    assert there[index_beside((X > 2,), there)].tolist() == [3, 4, 5]
    for wrong in ((np.array([0, 2]),), (slice(None), [3]), (X[0] > 2,), (5,)):
        with pytest.raises(IndexError):
            index_beside(wrong, there)


def test_how_messages_print_an_array():
    assert describe(np.zeros((4, 512), np.float32)) == "float32[4, 512]"
    assert describe(np.zeros((), bool)) == "bool[]"
