import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.ops import binary_cross_entropy_with_logits, cross_entropy, log_softmax, mse, nll
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


def soft_cross_entropy(x, targets, ignore, epsilon):
    """The mean of -Σ weight · log p over the rows that count, one by one."""
    losses = []
    for row, target in zip(x.reshape(-1, x.shape[-1]), targets.ravel()):
        if target != ignore:
            weights = np.full(len(row), epsilon / len(row))
            weights[target] += 1 - epsilon
            losses.append(-weights @ np.log(np.exp(row) / np.exp(row).sum()))
    return np.mean(losses)


@pytest.mark.parametrize("ignore", [None, 2, -100, 17])
@pytest.mark.parametrize("epsilon", [0, 0.1, 0.9])
def test_cross_entropy_ignores_and_smooths(ignore, epsilon):
    targets = TARGETS.copy()
    if ignore is not None:
        targets[1, :2] = ignore
    expected = soft_cross_entropy(X, targets, ignore, epsilon)

    def f(x):
        return cross_entropy(x, targets, ignore_index=ignore, label_smoothing=epsilon)

    assert f(Tensor(X)).item() == pytest.approx(expected, rel=1e-12)
    gradcheck(f, X)


def test_ignored_rows_change_nothing():
    few = np.array([[0, 9, 2], [9, 9, 1]])
    x = Tensor(X, requires_grad=True)
    z = cross_entropy(x, few, ignore_index=9)
    z.backward()
    rest = Tensor(X[few < 9], requires_grad=True)
    expected = cross_entropy(rest, few[few < 9])
    expected.backward()
    assert z.item() == pytest.approx(expected.item(), rel=1e-13)
    np.testing.assert_allclose(x.grad[few < 9], rest.grad, rtol=1e-13)
    assert (x.grad[few == 9] == 0).all()


def test_an_ignored_target_that_no_row_has_is_plain_cross_entropy():
    a, b = (Tensor(X, requires_grad=True) for _ in range(2))
    cross_entropy(a, TARGETS, ignore_index=-1).backward()
    cross_entropy(b, TARGETS).backward()
    np.testing.assert_allclose(a.grad, b.grad, rtol=1e-13)


def test_misused_options_are_named():
    with pytest.raises(ShapeMismatch, match="all 6 targets are ignore_index=7"):
        cross_entropy(Tensor(X), np.full((2, 3), 7), ignore_index=7)
    with pytest.raises(UsageError, match="label_smoothing is 1"):
        cross_entropy(Tensor(X), TARGETS, label_smoothing=1)
    with pytest.raises(ShapeMismatch, match="5 classes, but a target is -1"):
        cross_entropy(Tensor(X), TARGETS - 1, ignore_index=-2)


def test_nll_of_log_softmax_is_cross_entropy():
    def definition(x):
        return nll(log_softmax(x), TARGETS)

    assert definition(Tensor(X)).item() == pytest.approx(cross_entropy(Tensor(X), TARGETS).item())
    gradcheck(definition, X)
    gradcheck(lambda x: nll(x, Tensor(TARGETS)), X)
    with pytest.raises(ShapeMismatch, match="nll: there are 5 classes, but a target is 5"):
        nll(Tensor(X), TARGETS + 1)


def test_mse():
    y = np.cos(X)
    expected = sum((a - b) ** 2 for a, b in zip(X.ravel(), y.ravel())) / X.size
    assert mse(Tensor(X), y).item() == pytest.approx(expected, rel=1e-13)
    gradcheck(mse, X, y)
    gradcheck(lambda x: mse(x, y), X)


def test_binary_cross_entropy():
    t = np.random.default_rng(1).uniform(size=X.shape)
    p = 1 / (1 + np.exp(-X))
    expected = np.mean(-t * np.log(p) - (1 - t) * np.log(1 - p))
    assert binary_cross_entropy_with_logits(Tensor(X), t).item() == pytest.approx(expected)
    gradcheck(lambda x: binary_cross_entropy_with_logits(x, Tensor(t)), X)


def test_binary_cross_entropy_of_large_logits_is_finite():
    x = Tensor(np.array([1000.0, -1000.0, 1000.0, -1000.0]), requires_grad=True)
    z = binary_cross_entropy_with_logits(x, np.array([1.0, 0.0, 0.0, 1.0]))
    z.backward()
    assert z.item() == 500 and x.grad.tolist() == [0, 0, 0.25, -0.25]


@pytest.mark.parametrize("op", [mse, binary_cross_entropy_with_logits])
def test_a_column_against_a_row_is_named(op):
    with pytest.raises(ShapeMismatch, match=rf"{op.__name__}: float64\[3, 1\] and float64\[3\]"):
        op(Tensor(np.ones((3, 1))), np.ones(3))
    with pytest.raises(ShapeMismatch, match="not empty"):
        op(Tensor(np.ones((0, 1))), np.ones((0, 1)))


def test_binary_targets_get_no_gradient_silently():
    with pytest.raises(UsageError, match="detach"):
        binary_cross_entropy_with_logits(Tensor(X), Tensor(X, requires_grad=True))


def test_targets_may_be_lists():
    logits = Tensor(np.log([[0.25, 0.75], [0.5, 0.5]]))
    assert abs(cross_entropy(logits, [1, 0]).item() + np.log([0.75, 0.5]).mean()) < 1e-15
    with pytest.raises(ShapeMismatch):
        cross_entropy(logits, ["one", "two"])
