"""What holds for every op: one table, and the tests that all of it goes through.

A new op gets a line in OPS. What it computes is tested in the file named after its module.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from minipar import ops
from minipar.random import Draw
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck


class Op(NamedTuple):
    """f takes as many tensors as there are shapes; what else it needs it makes of their shapes."""

    f: Callable
    shapes: list[tuple[int, ...]]
    empty: list[tuple[int, ...]] | None = None  # shapes without elements; None: f refuses them
    positive: bool = False


def ids(shape, n):
    """Integers below n, some of them repeated."""
    return np.arange(np.prod(shape, dtype=int)).reshape(shape) // 2 % max(n, 1)


def some(shape):
    """Two of three elements."""
    return np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3 > 0


PAIR, NO_PAIR = [(3, 4), (3, 1)], [(0, 4), (0, 1)]
ONE, NONE = [(3, 4)], [(0, 4)]

OPS = {
    "add": Op(ops.add, PAIR, NO_PAIR),
    "sub": Op(ops.sub, PAIR, NO_PAIR),
    "mul": Op(ops.mul, PAIR, NO_PAIR),
    "div": Op(ops.div, PAIR, NO_PAIR, positive=True),
    "pow": Op(ops.pow, PAIR, NO_PAIR, positive=True),
    "pow number": Op(lambda x: ops.pow(x, 3), ONE, NONE),
    "maximum": Op(ops.maximum, PAIR, NO_PAIR),
    "minimum": Op(ops.minimum, PAIR, NO_PAIR),
    "where": Op(lambda x, y: ops.where(some(x.shape), x, y), PAIR, NO_PAIR),
    "clip": Op(lambda x: ops.clip(x, -0.5, 0.5), ONE, NONE),
    "abs": Op(ops.abs, ONE, NONE),
    "neg": Op(ops.neg, ONE, NONE),
    "exp": Op(ops.exp, ONE, NONE),
    "log": Op(ops.log, ONE, NONE, positive=True),
    "sqrt": Op(ops.sqrt, ONE, NONE, positive=True),
    "tanh": Op(ops.tanh, ONE, NONE),
    "sigmoid": Op(ops.sigmoid, ONE, NONE),
    "relu": Op(ops.relu, ONE, NONE),
    "gelu": Op(ops.gelu, ONE, NONE),
    "silu": Op(ops.silu, ONE, NONE),
    "erf": Op(ops.erf, ONE, NONE),
    "gelu_erf": Op(ops.gelu_erf, ONE, NONE),
    "drawn_dropout": Op(
        lambda x: ops.drawn_dropout(x, Draw(0, 1, range(len(x))), "d", 0.25), ONE, NONE
    ),
    "dropout": Op(lambda x: ops.dropout(x, some(x.shape), 0.25), ONE, NONE),
    "sum": Op(ops.sum, ONE, NONE),
    "sum axis": Op(lambda x: ops.sum(x, 0), ONE, NONE),
    "mean": Op(lambda x: ops.mean(x, 1), ONE, NONE),
    "var": Op(lambda x: ops.var(x, 1, ddof=1), ONE, NONE),
    "max": Op(lambda x: ops.max(x, 1), ONE, NONE),
    "min": Op(lambda x: ops.min(x, (1, 2)), [(3, 4, 2)], [(0, 4, 2)]),
    "logsumexp": Op(lambda x: ops.logsumexp(x, 1), ONE, NONE),
    "softmax": Op(ops.softmax, ONE, NONE),
    "log_softmax": Op(ops.log_softmax, ONE, NONE),
    "layer_norm": Op(ops.layer_norm, [(3, 4), (4,), (4,)], [(0, 4), (4,), (4,)]),
    "rms_norm": Op(ops.rms_norm, [(3, 4), (4,)], [(0, 4), (4,)]),
    "reshape": Op(lambda x: ops.reshape(x, 2, -1), ONE, NONE),
    "transpose": Op(ops.transpose, ONE, NONE),
    "getitem": Op(lambda x: ops.getitem(x, (slice(None), [1, 1, 3])), ONE, NONE),
    "getitem slice": Op(lambda x: ops.getitem(x, (..., slice(1, None, 2))), ONE, NONE),
    "gather": Op(lambda x: ops.gather(x, ids(x.shape, x.shape[-1])), ONE, NONE),
    "concat": Op(lambda *xs: ops.concat(xs, 1), [(3, 4), (3, 1)], NO_PAIR),
    "stack": Op(lambda *xs: ops.stack(xs, 1), [(3, 4), (3, 4)], [(0, 4), (0, 4)]),
    "split": Op(lambda x: ops.split(x, (1, 3), 1)[1], ONE, NONE),
    "pad": Op(lambda x: ops.pad(x, [(0, 0), (2, 1)], 7), ONE, NONE),
    "broadcast_to": Op(lambda x: ops.broadcast_to(x, (2, x.shape[0], 4)), [(3, 1)], [(0, 1)]),
    "matmul": Op(ops.matmul, [(2, 3, 4), (2, 4, 5)], [(2, 0, 4), (2, 4, 5)]),
    "linear": Op(ops.linear, [(2, 3, 4), (4, 5), (5,)], [(2, 0, 4), (4, 5), (5,)]),
    "linear_gelu": Op(ops.linear_gelu, [(2, 3, 4), (4, 5), (5,)], [(2, 0, 4), (4, 5), (5,)]),
    "embedding": Op(lambda w: ops.embedding(w, ids(w.shape[:1], len(w))), ONE, NONE),
    "causal_attention": Op(ops.causal_attention, [(2, 3, 3, 2, 4)], [(0, 3, 3, 2, 4)]),
    "scaled_dot_product_attention": Op(
        lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, causal=True),
        [(2, 3, 4, 2), (2, 5, 2, 2), (2, 5, 2, 2)],
        [(2, 0, 4, 2), (2, 5, 2, 2), (2, 5, 2, 2)],
    ),
    "scaled_dot_product_attention empty batch": Op(
        ops.scaled_dot_product_attention, [(1, 2, 2, 2)] * 3, [(0, 2, 2, 2)] * 3
    ),
    "rotary": Op(lambda x: ops.rotary(x, np.arange(x.shape[1])), [(2, 3, 2, 4)], [(2, 0, 2, 4)]),
    "conv2d": Op(
        lambda x, w, b: ops.conv2d(x, w, b, padding=1),
        [(2, 4, 3, 2), (3, 3, 2, 4), (4,)],
        [(0, 4, 3, 2), (3, 3, 2, 4), (4,)],
    ),
    "conv2d strided": Op(
        lambda x, w: ops.conv2d(x, w, stride=2, groups=2),
        [(2, 4, 3, 4), (2, 2, 2, 2)],
        [(0, 4, 3, 4), (2, 2, 2, 2)],
    ),
    "conv2d wide": Op(ops.conv2d, [(2, 4, 3, 1), (2, 2, 1, 5)], [(0, 4, 3, 1), (2, 2, 1, 5)]),
    "conv2d depthwise": Op(
        lambda x, w: ops.conv2d(x, w, groups=3),
        [(2, 4, 3, 3), (2, 2, 1, 3)],
        [(0, 4, 3, 3), (2, 2, 1, 3)],
    ),
    "max_pool2d": Op(lambda x: ops.max_pool2d(x, 2, 1), [(2, 4, 3, 2)], [(0, 4, 3, 2)]),
    "avg_pool2d": Op(lambda x: ops.avg_pool2d(x, 2, 1), [(2, 4, 3, 2)], [(0, 4, 3, 2)]),
    "batch_norm": Op(lambda *a: ops.batch_norm(*a)[0], [(5, 2, 3), (3,), (3,)]),
    "cross_entropy": Op(lambda x: ops.cross_entropy(x, ids(x.shape[:-1], 4)), ONE),
    "cross_entropy with options": Op(
        lambda x: ops.cross_entropy(x, ids(x.shape[:-1], 4), 0, 0.1), [(2, 3, 4)]
    ),
    "nll": Op(lambda x: ops.nll(x, ids(x.shape[:-1], 4)), ONE),
    "mse": Op(ops.mse, [(3, 4), (3, 4)]),
    "binary_cross_entropy_with_logits": Op(
        lambda x: ops.binary_cross_entropy_with_logits(x, some(x.shape).astype(x.dtype)), ONE
    ),
}

# How an array is stored, and the view of it that the op gets.
LAYOUTS = {
    "transposed": (lambda a: a.T.copy(), lambda x: ops.transpose(x)),
    "strided": (lambda a: np.repeat(a, 2, axis=-1), lambda x: x[..., ::2]),
    "backwards": (lambda a: a[..., ::-1].copy(), lambda x: x[..., ::-1]),
}


def draw(op, shapes, dtype="float64"):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes]
    return [(np.abs(a) + 0.3 if op.positive else a).astype(dtype) for a in arrays]


def test_every_op_is_in_the_table():
    assert {name.split()[0] for name in OPS} == set(ops.__all__)


@pytest.mark.parametrize("name", OPS)
def test_its_vjp_is_the_derivative(name):
    op = OPS[name]
    gradcheck(op.f, *draw(op, op.shapes))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPS)
def test_it_takes_views(name, layout):
    """Not contiguous are the inputs, and dz, since the result is transposed."""
    op, (stored, view) = OPS[name], LAYOUTS[layout]
    arrays = draw(op, op.shapes)

    def of_views(*xs):
        return ops.transpose(op.f(*map(view, xs)))

    expected = op.f(*map(Tensor, arrays)).data.T
    found = of_views(*(Tensor(stored(a)) for a in arrays)).data
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    gradcheck(of_views, *map(stored, arrays))


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.empty])
def test_it_takes_arrays_without_elements(name):
    op = OPS[name]
    arrays = draw(op, op.empty)
    gradcheck(op.f, *arrays)
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    z = op.f(*tensors)
    z.backward(np.ones(z.shape))
    assert all(t.grad.shape == t.shape for t in tensors)


@pytest.mark.parametrize("name", OPS)
def test_float32_stays_float32(name):
    op = OPS[name]
    exact = [Tensor(a, requires_grad=True) for a in draw(op, op.shapes)]
    single = [Tensor(a, requires_grad=True) for a in draw(op, op.shapes, "float32")]
    for tensors in (exact, single):
        z = op.f(*tensors)
        assert isinstance(z.data, np.ndarray) and z.dtype == tensors[0].dtype
        dz = np.ones(z.shape, z.dtype)
        grads = z._node.vjp(dz, (True,) * len(z._node.parents))
        assert all(g.dtype == z.dtype for g in grads)  # the engine would hide it
        z.backward(dz)
    np.testing.assert_allclose(z.data, op.f(*exact).data, rtol=1e-4, atol=1e-5)
    for a, b in zip(single, exact):
        np.testing.assert_allclose(a.grad, b.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OPS)
def test_an_op_that_says_so_keeps_nothing(name):
    op = OPS[name]
    z = op.f(*(Tensor(a, requires_grad=True) for a in draw(op, op.shapes)))
    if "Keeps nothing" in getattr(ops, name.split()[0]).__doc__:
        assert kept(z._node.vjp) == []


def kept(thing):
    """The arrays of floats that a closure holds, directly or in what it holds."""
    if isinstance(thing, np.ndarray):
        return [thing] if thing.dtype.kind == "f" else []
    if isinstance(thing, Tensor):
        return kept(thing.data)
    if isinstance(thing, (list, tuple)):
        return [array for part in thing for array in kept(part)]
    cells = getattr(thing, "__closure__", None) or ()
    return [array for cell in cells for array in kept(cell.cell_contents)]


@pytest.mark.parametrize("name", OPS)
def test_its_vjp_may_be_called_again_and_gives_nothing_away(name):
    """It writes neither into dz nor into what it keeps, and returns nothing that it keeps."""
    op = OPS[name]
    tensors = [Tensor(a, requires_grad=True) for a in draw(op, op.shapes)]
    z = op.f(*tensors)
    rng = np.random.default_rng(1)
    dz = rng.normal(size=z.shape)
    for array in (dz, *(t.data for t in tensors)):
        array.flags.writeable = False
    n = len(z._node.parents)
    grads = z._node.vjp(dz, (True,) * n)
    before = [np.array(g) for g in grads]
    for g in grads:
        assert not any(np.shares_memory(g, t.data) for t in tensors)
        if g.flags.writeable:  # else it is dz, or a view of something that is stretched
            g[...] = np.nan
    for one in range(n):
        again = z._node.vjp(dz, tuple(i == one for i in range(n)))
        assert all((g is not None) == (i == one) for i, g in enumerate(again))
        np.testing.assert_array_equal(again[one], before[one])
