import math

import numpy as np
import pytest

from minipar.ops import gelu, relu, tanh
from minipar.ops.nonlinear import gelu_definition
from minipar.tensor import Tensor, no_grad
from minipar.testing.gradcheck import gradcheck

X = np.random.default_rng(0).normal(size=(5, 7)) * 2


@pytest.mark.parametrize("op", [tanh, relu, gelu, gelu_definition])
def test_vjps(op):
    gradcheck(op, X)


def test_values():
    assert (tanh(Tensor(X)).data == np.tanh(X)).all()
    assert (relu(Tensor(X)).data == np.where(X > 0, X, 0)).all()
    erf = np.vectorize(math.erf)
    exact = X * 0.5 * (1 + erf(X / math.sqrt(2)))  # the tanh form is an approximation of this
    assert np.abs(gelu(Tensor(X)).data - exact).max() < 1e-3


def test_relu_is_flat_at_zero():
    x = Tensor([0.0, -1.0, 2.0], requires_grad=True)
    relu(x).sum().backward()
    assert x.grad.tolist() == [0, 0, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 100_003])  # several blocks, the last one not full
def test_gelu_in_blocks_is_its_definition(dtype, size):
    x = np.random.default_rng(1).normal(size=size).astype(dtype) * 3
    fast, slow = Tensor(x, requires_grad=True), Tensor(x, requires_grad=True)
    z = gelu(fast)
    assert z.dtype == dtype
    tolerance = {"rtol": 1e-5, "atol": 1e-5 if dtype == np.float32 else 1e-14}
    np.testing.assert_allclose(z.data, gelu_definition(slow).data, **tolerance)
    z.backward(x)
    gelu_definition(slow).backward(x)
    np.testing.assert_allclose(fast.grad, slow.grad, **tolerance)


def test_gelu_takes_strided_views_and_runs_without_a_graph():
    expected = gelu(Tensor(X.T.copy())).data
    with no_grad():
        assert (gelu(Tensor(X.T)).data == expected).all()
    gradcheck(lambda x: gelu(x.T), X)
