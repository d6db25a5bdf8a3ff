import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.ops import cross_entropy
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

X = np.random.default_rng(0).normal(size=(2, 3, 5))
TARGETS = np.array([[0, 4, 2], [2, 2, 1]])


def test_cross_entropy_is_the_mean_of_minus_log_softmax():
    p = np.exp(X) / np.exp(X).sum(axis=-1, keepdims=True)
    expected = np.mean([-np.log(p[i, j, TARGETS[i, j]]) for i in range(2) for j in range(3)])
    assert cross_entropy(Tensor(X), TARGETS).item() == pytest.approx(expected, rel=1e-12)
    assert cross_entropy(Tensor(X), Tensor(TARGETS)).shape == ()


def test_its_vjp():
    gradcheck(lambda x: cross_entropy(x, TARGETS), X)
    gradcheck(lambda x: cross_entropy(x, TARGETS) * 3.0, X)


def test_large_logits_stay_finite():
    x = Tensor(np.array([[1000.0, 0.0], [0.0, -1000.0]]), requires_grad=True)
    z = cross_entropy(x, np.array([1, 0]))
    z.backward()
    assert z.item() == pytest.approx(500) and np.isfinite(x.grad).all()


@pytest.mark.parametrize("bad", [-1, 5])
def test_a_target_out_of_range_is_named(bad):
    targets = TARGETS.copy()
    targets[1, 0] = bad
    with pytest.raises(ShapeMismatch, match=f"5 classes, but a target is {bad}.*0 to 4"):
        cross_entropy(Tensor(X), targets)


@pytest.mark.parametrize("targets", [TARGETS[0], TARGETS * 1.0, np.zeros((2, 3, 5), int)])
def test_targets_that_do_not_fit_are_named(targets):
    with pytest.raises(ShapeMismatch, match=r"float64\[2, 3, 5\].*one for each row"):
        cross_entropy(Tensor(X), targets)
