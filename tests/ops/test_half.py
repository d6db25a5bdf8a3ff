"""Ops on float16 and bfloat16 are the ops on float32, rounded once."""

import numpy as np
import pytest

from minipar import ops
from minipar.tensor import Tensor, no_grad
from tests.ops.test_all_ops import OPS, draw

LOSSES = {"cross_entropy", "nll", "mse", "binary_cross_entropy_with_logits"}
ROUNDS = {"float16": 2**-11, "bfloat16": 2**-8}  # half the distance of 1 to the next number


@pytest.fixture(params=ROUNDS)
def half(request):
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return request.param


def z_and_gradients(op, arrays):
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    z = op.f(*tensors)
    dz = 1 + np.arange(z.data.size).reshape(z.shape) % 8 / 8  # exact in 16 bits
    z.backward(dz.astype(z.dtype))
    return z.data, [x.grad for x in tensors]


@pytest.mark.parametrize("name", OPS)
def test_it_is_the_op_in_float32_rounded(half, name):
    op = OPS[name]
    arrays = [a.astype(half) for a in draw(op, op.shapes, "float32")]
    z, grads = z_and_gradients(op, arrays)
    exact, exact_grads = z_and_gradients(op, [a.astype("float32") for a in arrays])
    assert z.dtype == ("float32" if name.split()[0] in LOSSES else half)
    assert all(g.dtype == half for g in grads)
    for found, right in zip([z, *grads], [exact, *exact_grads]):
        np.testing.assert_allclose(
            found.astype("float32"), right, rtol=1.01 * ROUNDS[half], atol=1e-6
        )


MANY = 4096


@pytest.mark.parametrize(
    "f",
    [
        ops.sum,
        ops.mean,
        lambda x: (x * x).mean(),
        lambda x: ops.logsumexp(x),
        lambda x: ops.softmax(x).sum(),
        lambda x: ops.layer_norm(x + 3, x * 0 + 1, x * 0).max(),
        lambda x: x.reshape(1, -1) @ x.reshape(-1, 1),
        lambda x: ops.linear(x.reshape(1, -1), x.reshape(-1, 1)),
        lambda x: ops.cross_entropy(x.reshape(1, -1), np.array([5])),
    ],
)
def test_sums_are_made_in_float32(half, f):
    """4096 numbers: added up in bfloat16 they would not get beyond 256."""
    x = np.linspace(0.5, 1.5, MANY).astype(half)
    exact = f(Tensor(x.astype("float32"))).data
    np.testing.assert_allclose(f(Tensor(x)).data.astype("float32"), exact, rtol=ROUNDS[half])


@pytest.mark.parametrize(
    "f", [lambda x, b: x + b, lambda x, b: ops.linear(x, Tensor(x.data[:2]), b)]
)
def test_the_gradient_of_a_bias_is_added_up_in_float32(half, f):
    x, b = Tensor(np.ones((MANY, 2), half)), Tensor(np.zeros(2, half), requires_grad=True)
    f(x, b).backward(np.ones(x.shape, half))
    assert (b.grad == MANY).all()


def test_nothing_is_recorded_where_nothing_needs_a_gradient(half):
    x = Tensor(np.ones(3, half), requires_grad=True)
    with no_grad():
        assert not ops.exp(x).requires_grad
    assert not ops.exp(x.detach()).requires_grad
