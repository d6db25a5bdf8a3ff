import numpy as np
import pytest

from minipar import ops
from minipar.errors import ShapeMismatch, UsageError
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, size=(3, 4))


@pytest.mark.parametrize("other", [(3, 4), (4,), (1, 4), (3, 1), (), (2, 3, 4)])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum", "pow"])
def test_binary_ops_broadcast_forth_and_back(name, other):
    y = rng.uniform(0.5, 2, size=other)
    numpy_op = {"sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power}
    op = getattr(ops, name)
    x = Y if name == "pow" else X
    assert (
        op(Tensor(x), Tensor(y)).data == numpy_op.get(name, getattr(np, name, None))(x, y)
    ).all()
    gradcheck(op, x, y)
    gradcheck(op, y, Y)


@pytest.mark.parametrize(
    ("op", "plain"),
    [
        (ops.neg, np.negative),
        (ops.exp, np.exp),
        (ops.log, np.log),
        (ops.sqrt, np.sqrt),
        (ops.abs, np.abs),
        (lambda x: ops.abs(-x), np.abs),
        (lambda x: ops.pow(2, x), lambda y: 2**y),
        (lambda x: ops.pow(x, Y), lambda y: y**Y),
        (lambda x: ops.maximum(x, 1), lambda y: np.where(y > 1, y, 1)),
        (lambda x: ops.minimum(1, x), lambda y: np.where(y < 1, y, 1)),
        (lambda x: ops.pow(x, 3), lambda y: y**3),
        (lambda x: ops.pow(x, -0.5), lambda y: y**-0.5),
    ],
)
def test_unary_ops(op, plain):
    np.testing.assert_allclose(op(Tensor(Y)).data, plain(Y), rtol=1e-14)
    gradcheck(op, Y)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: 2 + x,
        lambda x: x + 2,
        lambda x: 2 - x,
        lambda x: x - 2,
        lambda x: 2 * x,
        lambda x: x * 2,
        lambda x: 2 / x,
        lambda x: x / 2,
        lambda x: x**2,
        lambda x: -x,
        lambda x: x + Y,
        lambda x: Y / x,
    ],
)
def test_operators_take_numbers_and_arrays(f):
    np.testing.assert_allclose(f(Tensor(Y)).data, f(Y), rtol=1e-14)
    gradcheck(f, Y)


def test_a_number_does_not_change_the_dtype():
    for z in (Tensor([1.0]) * 2.0, 2 / Tensor([1.0]), Tensor([1.0]) + np.float64(2)):
        assert z.dtype == np.float32


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_shapes_that_do_not_broadcast_are_named(name):
    with pytest.raises(ShapeMismatch, match=rf"{name}: float64\[3, 4\] and float64\[3\].*keepdims"):
        getattr(ops, name)(Tensor(X), Tensor(X[:, 0]))


def grads(f, *arrays):
    """The gradients of sum(f(...)), as lists."""
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    f(*tensors).sum().backward()
    return [t.grad.tolist() for t in tensors]


def test_equal_elements_share_the_gradient_of_a_maximum_or_minimum():
    x, y = [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]
    assert grads(ops.maximum, x, y) == [[0, 0.5, 1], [1, 0.5, 0]]
    assert grads(ops.minimum, x, y) == [[1, 0.5, 0], [0, 0.5, 1]]


def test_abs_is_flat_at_zero():
    assert grads(ops.abs, [-2.0, 0.0, 3.0]) == [[-1, 0, 1]]


def test_clip_lets_the_gradient_through_within_the_bounds():
    x = [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert ops.clip(Tensor(x), -1, 1).data.tolist() == [-1, -1, 0, 1, 1]
    assert grads(lambda x: ops.clip(x, -1, 1), x) == [[0, 1, 1, 1, 0]]
    assert grads(lambda x: ops.clip(x, low=-1), x) == [[0, 1, 1, 1, 1]]
    assert grads(lambda x: ops.clip(x, high=-1), x) == [[1, 1, 0, 0, 0]]
    gradcheck(lambda x: ops.clip(x, -0.5, 0.5), X)


@pytest.mark.parametrize("bounds", [(), (1, 0)])
def test_bounds_that_bound_nothing_are_named(bounds):
    with pytest.raises(UsageError, match="low <= high"):
        ops.clip(Tensor(X), *bounds)


@pytest.mark.parametrize("shapes", [((3, 4),) * 3, ((4,), (3, 1), (2, 1, 1)), ((3, 1), (4,), ())])
def test_where_broadcasts_all_three(shapes):
    condition, x, y = (rng.normal(size=shape) for shape in shapes)
    condition = condition > 0
    expected = condition * x + ~condition * y
    assert (ops.where(Tensor(condition), Tensor(x), Tensor(y)).data == expected).all()
    gradcheck(lambda x, y: ops.where(condition, x, y), x, y)


def test_where_stops_gradients_that_are_not_finite():
    x = Tensor([0.0, 4.0], requires_grad=True)
    ops.where(x.data > 0, x, 0).backward(np.array([np.inf, 2.0]))
    assert x.grad.tolist() == [0, 2]
    assert ops.where(np.array([True]), Tensor([1.0]), 2).dtype == np.float32


def test_powers_at_zero():
    assert grads(ops.pow, [0.0, 0.0, 0.0], [0.0, 1.0, 2.0]) == [[0, 1, 0], [0, 0, 0]]
    assert grads(lambda x: x**0, [0.0, 3.0]) == [[0, 0]]
    assert grads(lambda x: x**1, [0.0, 3.0]) == [[1, 1]]
    assert ops.pow(Tensor([2.0]), np.float64(2)).dtype == np.float32


def test_a_condition_that_does_not_broadcast_is_named():
    with pytest.raises(ShapeMismatch, match=r"where: bool\[3\] and float64\[3, 4\]"):
        ops.where(X[:, 0] > 0, Tensor(X), Tensor(X))
