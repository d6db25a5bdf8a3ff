import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.ops import concat, getitem, reshape, transpose
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)
X = rng.normal(size=(2, 3, 4))


@pytest.mark.parametrize("shape", [(6, 4), (2, -1), (24,), (-1,), (2, 3, 2, 2)])
def test_reshape(shape):
    assert (reshape(Tensor(X), *shape).data == X.reshape(shape)).all()
    assert (Tensor(X).reshape(shape).data == X.reshape(shape)).all()
    gradcheck(lambda x: reshape(x, shape), X)


@pytest.mark.parametrize("axes", [(), (0, 2, 1), (2, 0, 1), (-1, 0, 1)])
def test_transpose(axes):
    assert (transpose(Tensor(X), *axes).data == X.transpose(*axes)).all()
    gradcheck(lambda x: transpose(x, axes), X)


def test_t_reverses_the_axes():
    assert (Tensor(X).T.data == X.T).all()


@pytest.mark.parametrize(
    "index",
    [
        1,
        -1,
        slice(1, None),
        (slice(None), 0),
        (..., slice(None, None, 2)),
        (slice(None), None, 1),
        np.array([0, 1, 1, 0]),
        (slice(None), np.array([2, 0, 2])),
        (np.array([0, 1, 1]), np.array([2, 2, 2])),
        (np.array([[0], [1]]), np.array([0, 2]), slice(1, 3)),
        np.array([], dtype=int),
        X > 0,
    ],
)
def test_getitem_indexes_as_numpy_does_and_adds_up_repetitions(index):
    assert (Tensor(X)[index].data == X[index]).all()
    gradcheck(lambda x: x[index], X)


def test_a_tensor_can_be_unpacked_along_its_first_axis():
    a, b = Tensor(X)
    assert (a.data == X[0]).all() and (b.data == X[1]).all()
    gradcheck(lambda x: [row * 2 for row in x][1], X)


def test_getitem_takes_integer_tensors():
    assert (Tensor(X)[Tensor([1, 1])].data == X[[1, 1]]).all()


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis):
    parts = [X, X.take([0], axis=axis), X]
    assert (concat(list(map(Tensor, parts)), axis).data == np.concatenate(parts, axis)).all()
    gradcheck(lambda *xs: concat(xs, axis), *parts)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ShapeMismatch, match=r"24 elements, \[5, 5\]"):
        reshape(Tensor(X), 5, 5)
    with pytest.raises(ShapeMismatch, match=r"\[7, -1\]"):
        reshape(Tensor(X), 7, -1)
    with pytest.raises(ShapeMismatch, match="no axes"):
        transpose(Tensor(X), 0, 1)
    with pytest.raises(ShapeMismatch, match=r"getitem.*out of bounds"):
        getitem(Tensor(X), 5)
    with pytest.raises(ShapeMismatch, match="concat along axis 0"):
        concat([Tensor(X), Tensor(X[:, :1])])
    with pytest.raises(UsageError, match="at least one"):
        concat([])
