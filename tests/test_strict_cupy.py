"""The stand-in refuses what CuPy refuses, counts what crosses the bus, and offers no more."""

import copy
import inspect
from collections import Counter

import numpy as np
import pytest

from tests import strict_cupy
from tests.strict_cupy import counts, names

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def x(cupy):
    x = cupy.asarray(X)
    counts.clear()
    return x


@pytest.mark.parametrize(
    "mistake",
    [
        lambda cp, x: np.asarray(x),
        lambda cp, x: np.array([x, x]),
        lambda cp, x: np.exp(x),
        lambda cp, x: np.sum(x),
        lambda cp, x: np.concatenate([x, x]),
        lambda cp, x: x + X,
        lambda cp, x: X + x,
        lambda cp, x: np.zeros(6) @ x,
        lambda cp, x: x.__iadd__(X),
        lambda cp, x: np.zeros((2, 3)).__iadd__(x),
        lambda cp, x: x == X,
        lambda cp, x: cp.exp(X),
        lambda cp, x: cp.exp([1.0]),
        lambda cp, x: cp.sum(X),
        lambda cp, x: cp.where(x > 0, x, X),
        lambda cp, x: cp.concatenate([x, X]),
        lambda cp, x: cp.matmul(x, X.T),
        lambda cp, x: cp.exp(x, out=np.empty_like(X)),
        lambda cp, x: np.exp(X, out=x),
        lambda cp, x: x.__setitem__(0, X[0]),
        lambda cp, x: np.zeros((2, 3)).__setitem__(0, x[0]),
        lambda cp, x: cp.array([x, x]),
        lambda cp, x: range(x.argmax()),  # no __index__
    ],
)
def test_numpy_and_the_device_do_not_mix(cupy, x, mistake):
    with pytest.raises((TypeError, ValueError)):
        mistake(cupy, x)


@pytest.mark.parametrize(
    "index",
    [[0, 1], np.array([0, 1]), (slice(None), np.array([True, False, True])), True, "a", 0.5],
)
def test_an_index_does_not_carry_arrays_over(x, index):
    with pytest.raises(IndexError):
        x[index]
    with pytest.raises(IndexError):
        x[index] = 0


@pytest.mark.parametrize(
    "missing",
    [
        lambda cp, x: cp.block([[x]]),
        lambda cp, x: cp.errstate(all="ignore"),
        lambda cp, x: cp.nanpercentile(x, 5),
        lambda cp, x: cp.random.default_rng(0),
        lambda cp, x: cp.maximum.reduce(x),
        lambda cp, x: cp.add.reduceat(x, cp.arange(2)),
        lambda cp, x: cp.add.at(x, cp.arange(2), 1.0),
        lambda cp, x: cp.multiply.at(x, cp.arange(2), 1.0),
        lambda cp, x: x.cumsum(),
        lambda cp, x: cp.bincount(cp.arange(3), weights=x[0]),
        lambda cp, x: cp.einsum("ij->i", x, out=x[:, 0]),
        lambda cp, x: cp.clip(x, min=0),
        lambda cp, x: cp.take(x, cp.arange(2), mode="clip"),
        lambda cp, x: x.sum(where=x > 0),
        lambda cp, x: x.max(initial=0),
        lambda cp, x: cp.exp(x, where=x > 0),
        lambda cp, x: cp.argsort(x, stable=True),
        lambda cp, x: x.item(0),
        lambda cp, x: x.setflags(write=False),
        lambda cp, x: x.ctypes,
        lambda cp, x: x[x > 0, x > 0],
    ],
)
def test_what_cupy_lacks_is_missing(cupy, x, missing):
    with pytest.raises((AttributeError, TypeError, NotImplementedError)):
        missing(cupy, x)


def test_what_is_reduced_to_one_number_stays_an_array(cupy, x):
    for a in (
        x.sum(),
        x[1, 2],
        x.max(),
        cupy.mean(x),
        x[0] @ x[1],
        cupy.array_equal(x, x),
        -x[0, 0],
    ):
        assert isinstance(a, cupy.ndarray) and a.shape == ()
    assert counts == Counter()
    total = x.sum()
    other = total
    total += 1  # in place, other than with NumPy's scalars
    assert other.item() == 16


def test_views_share_memory_and_know_their_base(cupy, x):
    for view in (x[0], x[1, 2], x.T, x.reshape(-1), x[None], x[..., ::2], cupy.split(x, [1])[1]):
        assert view.base is x and view[...].base is x
    for new in (x + 0, x.copy(), x.T.reshape(-1), x[cupy.arange(2)], x.sum(axis=0), x.astype("f8")):
        assert new.base is None
    assert cupy.ascontiguousarray(x) is x and x.astype("f4", copy=False) is x and x[0].T.base is x
    x[1, 2][...] = 7
    x.T[0] += 1
    x[0].fill(9)
    assert x.tolist() == [[9, 9, 9], [4, 4, 7]]


def test_results_are_contiguous_and_flags_can_be_asked(x):
    assert not x.T.flags.c_contiguous and (x.T + 1).flags.c_contiguous
    assert (X.T + 1).strides != (x.T + 1).strides == (8, 4)
    cube = x[None].T  # a reduction keeps the order of what it reduces
    assert cube.sum(axis=2).flags.f_contiguous and not cube.sum(axis=2).flags.c_contiguous


def test_what_was_not_written_shows(cupy, x):
    made = (cupy.empty(2), cupy.ndarray(2), cupy.empty_like(x))
    assert all(np.isnan(a.get()).all() for a in made)
    assert (cupy.empty(2, int).get() > 10**9).all() and cupy.empty(2, bool).get().all()


def test_dtypes_are_those_of_numpy(cupy, x):
    assert (x * 2.0).dtype == (2.0 * x).dtype == (x**0.5).dtype == np.float32
    assert (x * np.float64(2)).dtype == (np.float64(2) * x).dtype == np.float64
    assert (x > 0).sum().dtype == np.int64 and cupy.arange(3).mean().dtype == np.float64


def test_out_must_be_exactly_what_comes_out(cupy, x):
    out = cupy.empty((2, 3), np.float32)
    assert cupy.exp(x, out=out) is out is cupy.multiply(out, 1, out)
    assert x.sum(axis=0, out=out[0]).base is out
    assert np.array_equal(out.get()[0], X.sum(axis=0))
    assert cupy.matmul(x, x.T, out=out[:, :2]).base is out
    for wrong in (cupy.empty((2, 3)), cupy.empty(3, np.float32)):
        with pytest.raises(TypeError, match="out is"):
            cupy.exp(x, out=wrong)
    with pytest.raises(TypeError, match="out is"):
        x += cupy.ones(3)  # float64


def test_indices_wrap_around_and_masks_wait(cupy, x):
    rows = cupy.asarray(np.array([2, -1]))
    counts.clear()
    assert x[rows, 0].get().tolist() == [0, 3]
    assert x[:, cupy.arange(2), None].shape == (2, 2, 1)
    assert x[..., cupy.arange(2)].get().tolist() == X[:, :2].tolist()
    assert counts == Counter(to_host=2)
    x[x > 2] = 0
    assert x[x > 1].shape == (1,)
    assert counts == Counter(to_host=2, waits=2)
    with pytest.raises(IndexError):
        x[5]


def test_nobody_may_assign_to_one_element_twice(cupy, x):
    x[cupy.asarray([1, 1])] = 3.0  # one value: whoever wins
    x[cupy.asarray([1, 0])] = x[0]
    with pytest.raises(IndexError, match="twice"):
        x[cupy.asarray([1, 1])] = x
    with pytest.raises(IndexError, match="twice"):
        x[cupy.asarray([0, 2])] -= 1  # 2 wraps around to 0
    with pytest.raises(IndexError, match="twice"):
        cupy.put_along_axis(x, cupy.asarray([[0, -3], [0, 1]]), x[:, :2], 1)
    cupy.put_along_axis(x, cupy.asarray([[2, 1], [0, 1]]), x[:, :2], 1)


def test_copies_over_the_bus_are_counted(cupy, x):
    cupy.asarray(X), cupy.array([1, 2]), cupy.asarray(0.5), x.set(X)
    assert counts == Counter(to_device=4)
    counts.clear()
    float(x[0, 0]), int(x[0, 0]), bool(x[0, 0]), x[0, 0].item(), x.get(), x.tolist()
    f"{x}", repr(x), cupy.asnumpy(x)
    assert counts == Counter(to_host=9)
    counts.clear()
    cupy.nonzero(x), x.nonzero(), cupy.unique(x), cupy.where(x > 0)
    assert counts == Counter(waits=4)
    counts.clear()
    (
        cupy.zeros(3),
        cupy.full(3, 0.5),
        cupy.arange(3),
        cupy.asarray(x),
        copy.deepcopy(x),
        x * 2,
        len(x),
    )
    list(x), x.shape, x[0], cupy.where(x > 0, x, 0)
    assert counts == Counter()


def test_the_tables_are_those_of_cupy():
    real = pytest.importorskip("cupy")
    for name in names.UFUNCS:
        assert isinstance(getattr(real, name), real.ufunc), name
    for method, having in names.UFUNC_METHODS.items():
        assert hasattr(real.ufunc, method)
        if method == "at":
            assert all(getattr(real, name)._scatter_op for name in having)
    for line in [*names.CREATION, *names.FUNCTIONS]:
        name, ours = strict_cupy.signature(line)
        theirs = inspect.signature(getattr(real, name)).parameters.values()
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in theirs]
        assert bare == list(ours.parameters.values()), name
    for line in names.METHODS:
        name, _, arguments = line.partition("(")
        told = getattr(real.ndarray, name).__doc__.partition("\n")[0]  # "sum(self, axis=None, ..."
        told = told.replace("_ndarray_base ", "").replace("Py_ssize_t ", "")
        assert name == "view" or f"(self, {arguments}".replace(", )", ")") in told, told
    for name in vars(strict_cupy.module()):
        assert hasattr(real, name) or name == "__getattr__", name
    for name in set(vars(strict_cupy.ndarray)) - {"_host", "_of", "_key"}:
        assert hasattr(real.ndarray, name), name
