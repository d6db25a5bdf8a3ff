import numpy as np
import pytest

from minipar import ops
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

X = np.random.default_rng(0).normal(size=(2, 3, 4))


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (-1, 0), (0, 1, 2), ()])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_reductions_are_numpys(name, axis, keepdims):
    op = getattr(ops, name)
    found = op(Tensor(X), axis, keepdims).data
    np.testing.assert_allclose(found, getattr(X, name)(axis=axis, keepdims=keepdims), rtol=1e-14)
    gradcheck(lambda x: op(x, axis, keepdims), X)


def test_they_are_methods():
    assert Tensor(X).sum(axis=0).shape == (3, 4)
    assert Tensor(X).mean(keepdims=True).shape == (1, 1, 1)
