import numpy as np
import pytest

from minipar.ops import mul
from minipar.tensor import Tensor, record
from minipar.testing.gradcheck import GradientMismatch, gradcheck

X, Y = np.array([1.0, 2.0, 3.0]), np.array([0.5, -1.0, 2.0])


def product(factor=1.0, swallow=False):
    """x · y with a vjp that may be wrong."""

    def op(x, y):
        def vjp(dz, wanted):
            if swallow and wanted != (True, True):
                return None, None
            return dz * y.data, dz * x.data * factor

        return record(x.data * y.data, (x, y), vjp)

    return op


def test_right_vjps_pass():
    gradcheck(mul, X, Y)
    gradcheck(product(), Tensor(X), [1.0, 2.0, 3.0])


def test_a_wrong_gradient_is_named_with_its_error():
    with pytest.raises(GradientMismatch, match=r"input 1 .*finite differences .*relative error"):
        gradcheck(product(factor=1.001), X, Y)


def test_small_errors_count_too():
    with pytest.raises(GradientMismatch):
        gradcheck(product(factor=1 + 1e-5), X, Y)


def test_a_gradient_that_only_some_subsets_get_is_found():
    with pytest.raises(Exception, match="nothing"):
        gradcheck(product(swallow=True), X, Y)


def test_an_input_without_gradient_is_named():
    with pytest.raises(GradientMismatch, match="input 1"):
        gradcheck(lambda x, y: mul(x, y.detach()) + y * 0.0, X, Y)
