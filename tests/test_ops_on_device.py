"""The same code on NumPy and on a GPU: every op, and backward, on the stand-in for CuPy.

The ops are those of OPS in tests/ops/test_all_ops.py. What they compute is compared with what they
compute on NumPy, and nothing may cross the bus unseen.
"""

import numpy as np
import pytest

from minipar import checks, ops, recompute
from minipar.array import to_numpy
from minipar.errors import GraphError
from minipar.tensor import Tensor, no_grad, record
from tests.ops.test_all_ops import OPS, draw
from tests.strict_cupy import agree, counts, kernels

# Ops that send what they are given as plain data, once: name: arrays
ONE = (
    "where",
    "dropout",
    "drawn_dropout",
    "getitem",
    "gather",
    "embedding",
    "rotary",
    "cross_entropy",
    "nll",
)
SENDS = {
    **dict.fromkeys(ONE, 1),
    "binary_cross_entropy_with_logits": 1,
    "cross_entropy with options": 2,  # also which of them count
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPS)
def test_an_op_is_the_same_on_the_device(cupy, name, dtype):
    op, found = OPS[name], []
    for xp in (np, cupy):
        tensors = [Tensor(xp.asarray(a), requires_grad=True) for a in draw(op, op.shapes, dtype)]
        counts.clear()
        z = op.f(*tensors)
        z.backward(xp.full(z.shape, 2.0, z.dtype) - z.data)
        made = [z.data, *(x.grad for x in tensors)]
        assert all(isinstance(a, xp.ndarray) and a.dtype == dtype for a in made)
        crossed = counts.copy()
        found.append([to_numpy(a) for a in made])
    exact = {"rtol": 1e-12, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-5}
    for here, there in zip(*found, strict=True):
        assert here.shape == there.shape
        np.testing.assert_allclose(there, here, **exact)
    assert agree(crossed, {"to_device": SENDS.get(name, 0)})


@pytest.mark.parametrize(
    ("f", "crossed"),
    [
        (lambda x, i: x[i], {}),
        (lambda x, i: x[:, i[0]], {}),
        (lambda x, i: x[i[0], i[1]], {}),
        (lambda x, i: x[i > 1], {"waits": 2}),  # forward and backward
        (ops.embedding, {"to_host": 1}),  # the range of the ids
        (lambda x, i: ops.embedding(x, i, sparse=True), {"to_host": 1, "waits": 1}),
        (lambda x, i: ops.cross_entropy(x, i[0]), {"to_host": 1}),
        (lambda x, i: ops.gather(x, i), {"to_host": 1}),
        (lambda x, i: ops.where(i > 0, x, -x), {}),
    ],
)
def test_what_lies_on_the_device_already_is_not_sent(cupy, f, crossed):
    found = []
    for xp in (np, cupy):
        x = Tensor(xp.asarray(np.random.default_rng(0).normal(size=(3, 3))), requires_grad=True)
        index = xp.asarray(np.array([[0, 2, 2], [1, 0, 1], [2, 1, 0]]))
        counts.clear()
        z = f(x, index)
        z.backward(z.data)
        sent = counts.copy()
        grad = x.grad if isinstance(x.grad, xp.ndarray) else x.grad.dense()
        found.append([to_numpy(z.data), to_numpy(grad)])
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-12)
    assert agree(sent, crossed)


ROWS = {
    "gelu": ops.gelu,
    "gelu_erf": ops.gelu_erf,
    "silu": ops.silu,
    "softmax": ops.softmax,
    "layer_norm": lambda x: ops.layer_norm(x, x[0], x[1]),
    "rms_norm": lambda x: ops.rms_norm(x, x[0]),
    "batch_norm": lambda x: ops.batch_norm(x, x[0], x[1])[0],
    "linear": lambda x: ops.linear(x, x[:64]),
    "linear_gelu": lambda x: ops.linear_gelu(x, x[:64], x[0]),
    "conv2d": lambda x: ops.conv2d(x.reshape(-1, 8, 8, 64), x[:64].reshape(1, 1, 64, 64)),
    "max_pool2d": lambda x: ops.max_pool2d(x.reshape(-1, 8, 8, 64), 2),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_large_array_is_not_cut_into_blocks_on_the_device(cupy, name):
    """Each block costs launches, so there must not be more of them than for a small array."""
    called = []
    for n in (64, 6400):
        x = Tensor(cupy.ones((n, 64), np.float32), requires_grad=True)
        kernels.clear()
        z = ROWS[name](x)
        z.backward(z.data)
        called.append(kernels.copy())
    assert called[0] == called[1]


def gradients_in_all_ways(xp):
    """Of a weight that is used twice, between an input and a frozen weight."""
    numbers = np.random.default_rng(0).normal(size=(3, 4, 4))
    x, frozen, w = (Tensor(xp.asarray(a)) for a in numbers)
    w.requires_grad = True
    told, found, buffer = [], [], xp.zeros((2, 4, 4))
    w.when_final(told.append)

    def f(w=w):
        return (ops.tanh(x @ w @ frozen) @ w).sum()

    for g in (None, buffer[1]):  # an array of its own, then a view into a buffer
        w.grad = g
        f().backward()
        f().backward(xp.full((), 2.0))
        f().backward(defer=[w])()
        f().backward(retain_graph=True)
        recompute.checkpoint(f, w).backward()
        with checks():
            z = f()
        z.backward()
        found.append(to_numpy(w.grad.copy()))
        assert w.grad.base is (None if g is None else buffer)
        w.zero_grad()
    with no_grad():
        assert not f().requires_grad
    assert len(told) == 12 and w.grad is not None and not to_numpy(buffer).any()
    return found


def test_backward_in_all_its_ways_on_the_device(cupy):
    here, there = gradients_in_all_ways(np), gradients_in_all_ways(cupy)
    np.testing.assert_allclose(there, here, rtol=1e-12)


def test_a_sum_without_axes_is_no_scalar_that_two_share(cupy):
    x = Tensor(cupy.ones(3), requires_grad=True)
    total = x.sum()
    (total + total * 2 + total).backward()
    assert x.grad.get().tolist() == [4, 4, 4]


def test_checks_find_mistakes_on_the_device(cupy):
    def careless(x, vjp):
        kept = cupy.ones(3)
        return record(x.data * 2, (x,), lambda dz, wanted: (vjp(dz, kept),))

    x = Tensor(cupy.ones(3), requires_grad=True)
    for vjp, complaint in (
        (lambda dz, kept: kept, "which it also keeps"),
        (lambda dz, kept: kept[::-1], "which it also keeps"),
        (lambda dz, kept: dz.__imul__(2), "written into dz"),
    ):
        with checks(), pytest.raises(GraphError, match=complaint):
            careless(x, vjp).backward(cupy.ones(3))
    with checks():
        z = x * x
    x.data += 1
    with pytest.raises(GraphError, match="changed in place"):
        z.backward(cupy.ones(3))
