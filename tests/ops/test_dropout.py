import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.ops import dropout
from minipar.random import Draw
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

X = np.random.default_rng(0).normal(size=(4, 50))
KEEP = Draw(0, 0, range(4)).keep("x", X.shape, 0.4)


def test_dropped_elements_are_zero_and_others_grow():
    assert np.allclose(dropout(Tensor(X), KEEP, 0.4).data, np.where(KEEP, X / 0.6, 0))
    gradcheck(lambda x: dropout(x, KEEP, 0.4), X)
    assert dropout(Tensor(X.astype(np.float32)), KEEP, 0.4).dtype == np.float32


def test_misuse_is_named():
    with pytest.raises(UsageError, match="p is 1"):
        dropout(Tensor(X), KEEP, 1)
    with pytest.raises(ShapeMismatch, match="mask"):
        dropout(Tensor(X), KEEP[:2], 0.4)
