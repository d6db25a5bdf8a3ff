"""The same code on NumPy and on a GPU: every op, layer, model and optimizer runs on the stand-in.

A new op gets a line in OPS, a new layer or model one in LAYERS or MODELS. What it computes is
compared with what it computes on NumPy, and nothing may cross the bus on the way.
"""

from collections import Counter

import numpy as np
import pytest

from minipar import nn, ops
from minipar.models import GPT, MLP
from minipar.ops.nonlinear import gelu_definition
from minipar.ops.normalize import layer_norm_definition
from minipar.optim import SGD, Adam, AdamW, clip_grad_norm
from minipar.random import Draw, Init
from minipar.tensor import Tensor, no_grad
from tests.strict_cupy import counts

rng = np.random.default_rng(0)
X = rng.uniform(0.5, 2, size=(2, 3, 4))
Y = rng.uniform(0.5, 2, size=(3, 4))
W = rng.normal(size=(4, 5))
ROW = rng.normal(size=(4,))
IDS = np.array([[0, 2, 2], [1, 0, 2]])

# name: (f of tensors, their arrays); index arrays are made by f, on the host
OPS = {
    "add": (ops.add, [X, Y]),
    "sub": (ops.sub, [X, Y]),
    "mul": (ops.mul, [X, Y]),
    "div": (ops.div, [X, Y]),
    "neg": (ops.neg, [X]),
    "pow": (lambda x: ops.pow(x, 3), [X]),
    "exp": (ops.exp, [X]),
    "log": (ops.log, [X]),
    "sqrt": (ops.sqrt, [X]),
    "numbers": (lambda x: 2 / (1 - 0.5 * x + 3) - x**2 / 2, [X]),
    "tanh": (ops.tanh, [X]),
    "relu": (ops.relu, [X - 1]),
    "gelu": (ops.gelu, [X]),
    "gelu_definition": (gelu_definition, [X]),
    "softmax": (ops.softmax, [X]),
    "layer_norm": (ops.layer_norm, [X, ROW, ROW]),
    "layer_norm_definition": (layer_norm_definition, [X, ROW, ROW]),
    "matmul": (ops.matmul, [X, X.swapaxes(1, 2)]),
    "matmul 2d": (ops.matmul, [X, W]),
    "linear": (ops.linear, [X, W, rng.normal(size=5)]),
    "causal_attention": (ops.causal_attention, [rng.normal(size=(2, 3, 3, 2, 4))]),
    "sum": (lambda x: ops.sum(x, axis=(0, 2)), [X]),
    "sum all": (ops.sum, [X]),
    "mean": (lambda x: ops.mean(x, axis=1, keepdims=True), [X]),
    "mean all": (ops.mean, [X]),
    "reshape": (lambda x: ops.reshape(x, 4, -1), [X]),
    "reshape transposed": (lambda x: ops.reshape(x.T, -1), [X]),
    "transpose": (lambda x: ops.transpose(x, 1, 2, 0), [X]),
    "getitem": (lambda x: x[:, 1] + x[0, None, 2], [X]),
    "iterate": (lambda x: [row * 2 for row in x][1], [X]),
    "concat": (lambda x, y: ops.concat([x, y, x], axis=1), [X, X * 2]),
    "the same twice": (lambda x: x * x + x.sum() * x.mean(), [X]),
}


def both(cupy, f, arrays, dtype, index=()):
    """(value, gradients) of f on NumPy and on the device, and what crossed the bus meanwhile."""
    found = []
    for xp in (np, cupy):
        tensors = [Tensor(xp.asarray(a.astype(dtype)), requires_grad=True) for a in arrays]
        places = [xp.asarray(i) for i in index]
        counts.clear()
        z = f(*tensors, *places)
        assert isinstance(z.data, xp.ndarray) and z.dtype == dtype
        z.backward((2 * xp.ones_like(z.data)))
        crossed = counts.copy()
        for x in tensors:
            assert isinstance(x.grad, xp.ndarray) and x.grad.dtype == dtype
        found.append([cupy.asnumpy(a) for a in (z.data, *(x.grad for x in tensors))])
    return *found, crossed


def agree(host, device, dtype):
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == np.float64 else {"rtol": 1e-5, "atol": 1e-5}
    for a, b in zip(host, device, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, **tolerance)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", OPS)
def test_an_op_is_the_same_on_the_device(cupy, name, dtype):
    f, arrays = OPS[name]
    host, device, crossed = both(cupy, f, arrays, dtype)
    agree(host, device, dtype)
    assert crossed == Counter()


def test_every_op_is_in_the_table():
    pass
