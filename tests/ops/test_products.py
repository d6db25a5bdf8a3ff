import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.ops import add, linear, linear_gelu, matmul
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((3, 4), (4, 5)),
        ((2, 3, 4), (4, 5)),
        ((2, 3, 4), (2, 4, 5)),
        ((6, 2, 3, 4), (2, 4, 5)),
        ((3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (1, 6, 4, 5)),
        ((0, 4), (4, 5)),
    ],
)
def test_matmul_is_numpys_and_its_vjp_the_derivative(x, w):
    x, w = rng.normal(size=x), rng.normal(size=w)
    np.testing.assert_allclose((Tensor(x) @ Tensor(w)).data, x @ w, rtol=1e-12, atol=1e-14)
    gradcheck(matmul, x, w)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)])
def test_linear_is_matmul_plus_bias(lead):
    x, w, b = rng.normal(size=(*lead, 4)), rng.normal(size=(4, 5)), rng.normal(size=5)
    np.testing.assert_allclose(linear(*map(Tensor, (x, w, b))).data, x @ w + b, atol=1e-13)
    if lead:
        slow = add(matmul(Tensor(x), Tensor(w)), Tensor(b)).data
        np.testing.assert_allclose(linear(*map(Tensor, (x, w, b))).data, slow, atol=1e-13)
    gradcheck(linear, x, w, b)
    gradcheck(linear, x, w)


@pytest.mark.parametrize(("i", "o"), [(0, 5), (4, 0)])
def test_linear_may_have_no_features(i, o):
    for lead in [(3,), (2, 3)]:
        x, w, b = rng.normal(size=(*lead, i)), rng.normal(size=(i, o)), rng.normal(size=o)
        assert (linear(*map(Tensor, (x, w, b))).data == np.zeros((*lead, o)) + b).all()
        gradcheck(linear, x, w, b)
        gradcheck(linear_gelu, x, w, b)


def test_linear_takes_a_transposed_weight():
    x, w = rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 4))
    gradcheck(lambda x, w: linear(x, w.T), x, w)


def test_shapes_that_do_not_fit_are_named():
    x, w = Tensor(np.ones((3, 4))), Tensor(np.ones((5, 4)))
    with pytest.raises(ShapeMismatch, match=r"matmul: float64\[3, 4\] @ float64\[5, 4\].*\.T"):
        matmul(x, w)
    with pytest.raises(ShapeMismatch, match="two axes"):
        matmul(x, Tensor(np.ones(4)))
    with pytest.raises(ShapeMismatch, match=r"linear: x is float64\[3, 4\].*\[in, out\]"):
        linear(x, w)
    with pytest.raises(ShapeMismatch, match=r"b is float64\[3\]"):
        linear(x, w.T, Tensor(np.ones(3)))
