import numpy as np
import pytest

from minipar import ops
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

X = np.random.default_rng(0).normal(size=(2, 3, 4))


AXES = [None, 0, -1, (0, 2), (-1, 0), (0, 1, 2), ()]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "min"])
def test_reductions_are_numpys(name, axis, keepdims):
    op = getattr(ops, name)
    found = op(Tensor(X), axis, keepdims).data
    np.testing.assert_allclose(found, getattr(X, name)(axis=axis, keepdims=keepdims), rtol=1e-14)
    gradcheck(lambda x: op(x, axis, keepdims), X)


def test_they_are_methods():
    assert Tensor(X).sum(axis=0).shape == (3, 4)
    assert Tensor(X).mean(keepdims=True).shape == (1, 1, 1)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp(axis, keepdims):
    found = ops.logsumexp(Tensor(X), axis, keepdims).data
    expected = np.log(np.exp(X).sum(axis=axis, keepdims=keepdims))
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)
    gradcheck(lambda x: ops.logsumexp(x, axis, keepdims), X)


def test_logsumexp_of_large_numbers_is_finite():
    x = Tensor(np.array([[1000.0, 1000.0], [-1000.0, -np.inf]]), requires_grad=True)
    z = ops.logsumexp(x, axis=1)
    z.sum().backward()
    np.testing.assert_allclose(z.data, [1000 + np.log(2), -1000], rtol=1e-15)
    np.testing.assert_allclose(x.grad, [[0.5, 0.5], [1, 0]], rtol=1e-15)


@pytest.mark.parametrize("ddof", [0, 1, 2])
def test_var_divides_by_n_minus_ddof(ddof):
    deviations = X - X.sum(axis=1, keepdims=True) / 3
    expected = (deviations**2).sum(axis=1) / (3 - ddof)
    np.testing.assert_allclose(ops.var(Tensor(X), 1, ddof=ddof).data, expected, rtol=1e-13)
    gradcheck(lambda x: ops.var(x, 1, ddof=ddof), X)


def test_equal_elements_share_the_gradient_of_their_maximum_over_all_axes():
    x = Tensor([[[3.0, 1.0], [3.0, 0.0]], [[2.0, 2.0], [0.0, 1.0]]], requires_grad=True)
    ops.max(x, axis=(1, 2)).backward(np.array([8.0, 2.0]))
    assert x.grad.tolist() == [[[4, 0], [4, 0]], [[1, 1], [0, 0]]]
    x.zero_grad()
    ops.min(x).backward()
    assert x.grad.tolist() == [[[0, 0], [0, 0.5]], [[0, 0], [0.5, 0]]]


@pytest.mark.parametrize("name", ["max", "min", "logsumexp", "var"])
def test_nothing_to_reduce_is_named(name):
    with pytest.raises(ShapeMismatch, match=rf"{name}: float64\[2, 0\].* elements .*\[1\]"):
        getattr(ops, name)(Tensor(np.ones((2, 0))), -1)
    assert getattr(ops, name)(Tensor(np.ones((2, 0))), 0).shape == (0,)


def test_var_of_one_element_has_no_ddof_1():
    with pytest.raises(ShapeMismatch, match=r"has 1 elements.*more than ddof=1"):
        ops.var(Tensor(np.ones((2, 1))), 1, ddof=1)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "min", "logsumexp"])
def test_an_axis_that_is_not_there_is_named(name):
    op = getattr(ops, name)
    with pytest.raises(ShapeMismatch, match=rf"{name}: float64\[2, 3, 4\].* no axis 3; .*0 \.\. 2"):
        op(Tensor(X), 3)
    with pytest.raises(ShapeMismatch, match=r"no axis -4; .* -1 \.\. -3"):
        op(Tensor(X), (0, -4))
    with pytest.raises(ShapeMismatch, match="no axis 0; there are none"):
        op(Tensor(1.0), 0)
    assert op(Tensor(X), np.int64(1)).shape == (2, 4)
