import math

import numpy as np
import pytest

from minipar.ops import erf, gelu_erf
from minipar.ops.erf import gelu_erf_definition
from minipar.tensor import Tensor, no_grad
from minipar.testing.gradcheck import gradcheck

X = np.random.default_rng(0).normal(size=(5, 7)) * 2
WIDE = np.concatenate([np.linspace(-12, 12, 5001), [-1e3, -1e-9, 0, 1e-300, 1e3]])


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 5e-16), (np.float32, 3e-7)])
def test_erf_is_that_of_the_math_library(dtype, error):
    x = WIDE.astype(dtype)
    expected = [math.erf(v) for v in x]
    z = erf(Tensor(x)).data
    assert z.dtype == dtype
    np.testing.assert_allclose(z, expected, rtol=0, atol=error)
    assert erf(Tensor([-np.inf, np.inf])).data.tolist() == [-1, 1]


def test_gelu_is_precise_also_where_it_is_tiny():
    x = np.linspace(-37, 8, 3001)  # x · Φ(x) is 1e-298 at the left end
    expected = [v * math.erfc(-v / math.sqrt(2)) / 2 for v in x]
    error = 2e-15 + 2 * np.finfo(float).eps * x**2  # x²/2 is rounded, then in an exponent
    assert (np.abs(gelu_erf(Tensor(x)).data - expected) <= error * np.abs(expected)).all()


@pytest.mark.parametrize("op", [erf, gelu_erf, gelu_erf_definition])
def test_vjps(op):
    gradcheck(op, X)
    gradcheck(lambda x: op(x.T), X)
    gradcheck(op, X * 10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 40_003])  # several blocks, the last one not full
def test_gelu_in_blocks_is_its_definition(dtype, size):
    x = np.random.default_rng(1).normal(size=size).astype(dtype) * 3
    fast, slow = Tensor(x, requires_grad=True), Tensor(x, requires_grad=True)
    z, expected = gelu_erf(fast), gelu_erf_definition(slow)
    close = {"rtol": 0, "atol": 3e-6 if dtype == np.float32 else 1e-14}
    assert z.dtype == dtype
    np.testing.assert_allclose(z.data, expected.data, **close)
    z.backward(x)
    expected.backward(x)
    np.testing.assert_allclose(fast.grad, slow.grad, **close)
    with no_grad():
        assert (gelu_erf(Tensor(x)).data == z.data).all()
