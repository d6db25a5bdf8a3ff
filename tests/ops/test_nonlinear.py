import math

import numpy as np
import pytest

from minipar.ops import gelu, relu, sigmoid, silu, tanh
from minipar.ops.nonlinear import gelu_definition, silu_definition
from minipar.tensor import Tensor, no_grad
from minipar.testing.gradcheck import gradcheck

X = np.random.default_rng(0).normal(size=(5, 7)) * 2


@pytest.mark.parametrize("op", [tanh, relu, sigmoid, gelu, gelu_definition, silu, silu_definition])
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


@pytest.mark.parametrize("op", [gelu, silu])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 100_003])  # several blocks, the last one not full
def test_in_blocks_is_the_definition(op, dtype, size):
    definition = {gelu: gelu_definition, silu: silu_definition}[op]
    x = np.random.default_rng(1).normal(size=size).astype(dtype) * 3
    fast, slow = Tensor(x, requires_grad=True), Tensor(x, requires_grad=True)
    z = op(fast)
    assert z.dtype == dtype
    tolerance = {"rtol": 1e-5, "atol": 1e-5 if dtype == np.float32 else 1e-14}
    np.testing.assert_allclose(z.data, definition(slow).data, **tolerance)
    z.backward(x)
    definition(slow).backward(x)
    np.testing.assert_allclose(fast.grad, slow.grad, **tolerance)


@pytest.mark.parametrize("op", [gelu, silu])
def test_takes_strided_views_and_runs_without_a_graph(op):
    expected = op(Tensor(X.T.copy())).data
    with no_grad():
        assert (op(Tensor(X.T)).data == expected).all()
    gradcheck(lambda x: op(x.T), X)


def test_sigmoid_keeps_its_precision_in_both_tails():
    x = np.array([-1000, -700, -40, -1, 0, 1, 40, 700, 1000])
    expected = [1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (math.exp(v) + 1) for v in x]
    for op, factor in ((sigmoid, 1), (silu, x)):
        np.testing.assert_allclose(
            op(Tensor(x * 1.0)).data, expected * factor, rtol=1e-15, atol=1e-304
        )
    far = Tensor(np.array([-1000.0, 1000.0]), requires_grad=True)
    (sigmoid(far) + silu(far)).sum().backward()
    np.testing.assert_allclose(far.grad, [0, 1], rtol=0, atol=1e-300)
    for dtype in (np.float16, np.float32):
        ends = sigmoid(Tensor(np.array([-6e4, -5, 5, 6e4], dtype)))
        assert ends.dtype == dtype
        np.testing.assert_allclose(ends.data, [0, 0.0066928, 0.9933071, 1], rtol=1e-3, atol=2e-5)
