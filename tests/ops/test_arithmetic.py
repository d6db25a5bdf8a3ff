import numpy as np
import pytest

from minipar import ops
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, size=(3, 4))


@pytest.mark.parametrize("other", [(3, 4), (4,), (1, 4), (3, 1), (), (2, 3, 4)])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_binary_ops_broadcast_forth_and_back(name, other):
    y = rng.uniform(0.5, 2, size=other)
    numpy_op = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[name]
    op = getattr(ops, name)
    assert (op(Tensor(X), Tensor(y)).data == numpy_op(X, y)).all()
    gradcheck(op, X, y)
    gradcheck(op, y, Y)


@pytest.mark.parametrize(
    ("op", "plain"),
    [
        (ops.neg, np.negative),
        (ops.exp, np.exp),
        (ops.log, np.log),
        (ops.sqrt, np.sqrt),
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
