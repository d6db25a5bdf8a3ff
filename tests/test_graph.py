import gc
import sys
import weakref

import numpy as np
import pytest

from minipar.errors import GraphError, ShapeMismatch
from minipar.graph import collect
from minipar.ops import embedding, gelu, linear, matmul, relu
from minipar.recompute import checkpoint
from minipar.sparse import RowGradient
from minipar.tensor import Tensor, record


def network():
    """Two layers with a tied weight behind a transpose, and an input that wants a gradient."""
    rng = np.random.default_rng(0)
    x, w, v, b = (
        Tensor(rng.normal(size=s), requires_grad=True) for s in [(5, 4), (4, 3), (3, 3), (3,)]
    )
    h = gelu(linear(x, w, b))
    z = matmul(matmul(h, v) + h, w.T)  # w again, behind an intermediate node
    return {"x": x, "w": w, "v": v, "b": b}, z


def gradients(leaves):
    return {name: None if leaf.grad is None else leaf.grad.copy() for name, leaf in leaves.items()}


@pytest.mark.parametrize("late", ["x", "w", "v", "b", "wv", "wvb", "xwvb", ""])
def test_deferred_gradients_come_later_and_are_the_same(late):
    leaves, z = network()
    dz = np.random.default_rng(1).normal(size=z.shape)
    z.backward(dz)
    whole = gradients(leaves)

    leaves, z = network()
    rest = z.backward(dz, defer=[leaves[n] for n in late])
    half = gradients(leaves)
    for name in leaves:
        if name in late:
            assert half[name] is None
        else:
            np.testing.assert_allclose(half[name], whole[name], rtol=1e-12)
    rest()
    for name, found in gradients(leaves).items():
        np.testing.assert_allclose(found, whole[name], rtol=1e-12)


def test_deferring_weights_computes_input_gradients_only():
    calls = []
    x, w = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))

    def vjp(dz, wanted):
        calls.append(wanted)
        return tuple(dz * 2 if want else None for want in wanted)

    z = record(x.data, (x, w), vjp)
    rest = z.backward(np.ones(2), defer=[w])
    assert calls == [(True, False)] and w.grad is None
    rest()
    assert calls == [(True, False), (False, True)] and (w.grad == 2).all()


def test_the_deferred_half_can_be_done_once():
    leaves, z = network()
    rest = z.backward(np.ones(z.shape), defer=[leaves["w"]])
    rest()
    with pytest.raises(GraphError, match="already"):
        rest()


def test_a_graph_with_a_pending_half_is_used_up():
    leaves, z = network()
    z.backward(np.ones(z.shape), defer=[leaves["w"]])
    with pytest.raises(GraphError, match="before"):
        z.backward(np.ones(z.shape))


def test_values_that_no_vjp_keeps_are_freed_in_the_forward_pass():
    x = Tensor(np.ones(3), requires_grad=True)
    y = x + 1.0
    z = y.reshape(3, 1) + 1.0
    dropped = weakref.ref(y)
    del y
    gc.collect()
    assert dropped() is None
    z.sum().backward()
    assert (x.grad == 1).all()


def test_activations_are_freed_as_backward_passes():
    class Kept:
        pass

    alive, order = [], []

    def stage(x, n):
        kept = Kept()
        alive.append(weakref.ref(kept))

        def vjp(dz, wanted, kept=kept):
            order.append((n, [r() is not None for r in alive]))
            return (dz * 1,)

        return record(x.data * 1, (x,), vjp)

    z = stage(stage(Tensor(np.ones(1), requires_grad=True), 0), 1)
    z.backward(np.ones(1))  # z is still held here, and holds nothing
    assert order == [(1, [True, True]), (0, [True, False])]
    assert [r() for r in alive] == [None, None]


def test_a_vjp_of_the_wrong_shape_is_named():
    def double(x):
        return record(x.data, (x,), lambda dz, wanted: (np.ones(7),))

    with pytest.raises(ShapeMismatch, match=r"backward of double.*\[2\].*\[7\]"):
        double(Tensor(np.ones(2), requires_grad=True)).sum().backward()


def test_a_vjp_that_forgets_a_gradient_is_named():
    z = record(np.ones(2), (Tensor(np.ones(2), requires_grad=True),), lambda dz, wanted: (None,))
    with pytest.raises(ShapeMismatch, match="nothing"):
        z.backward(np.ones(2))


def test_leaves_become_final_as_soon_as_their_last_consumer_is_done():
    # Data parallel overlaps with backward only if the last layer's gradients come first.
    order = []

    def layer(x, w, n):
        def vjp(dz, wanted):
            order.append(f"layer {n}")
            return dz @ w.data.T, x.data.T @ dz

        w.when_final(lambda _: order.append(f"weight {n}"))
        return x + relu(record(x.data @ w.data, (x, w), vjp))

    x = Tensor(np.ones((2, 3)), requires_grad=True)
    for n in range(3):
        x = layer(x, Tensor(np.eye(3), requires_grad=True), n)
    x.sum().backward()
    assert order == ["layer 2", "weight 2", "layer 1", "weight 1", "layer 0", "weight 0"]


def test_a_retained_graph_can_be_gone_through_again():
    leaves, z = network()
    dz = np.random.default_rng(1).normal(size=z.shape)
    z.backward(dz, retain_graph=True)
    once = gradients(leaves)
    rest = z.backward(dz, defer=[leaves["w"]], retain_graph=True)
    rest()
    z.backward(dz)
    for name, found in gradients(leaves).items():
        np.testing.assert_allclose(found, 3 * once[name], rtol=1e-12)
    with pytest.raises(GraphError, match="retain_graph=True"):
        z.backward(dz)


def test_collected_gradients_leave_grad_alone():
    leaves, z = network()
    dz = np.random.default_rng(1).normal(size=z.shape)
    z.backward(dz, retain_graph=True)
    expected = gradients(leaves)
    other = Tensor(np.ones(2), requires_grad=True)
    found = collect(z._node, dz, [leaves["v"], other, leaves["x"]])
    np.testing.assert_allclose(found[0], expected["v"], rtol=1e-12)
    assert (found[1] == 0).all()
    np.testing.assert_allclose(found[2], expected["x"], rtol=1e-12)
    for name, grad in gradients(leaves).items():
        assert (grad == expected[name]).all()


def test_collected_gradients_are_nobody_elses():
    """An addition hands dz itself to both of its parents."""
    x, y, dz = (Tensor(np.ones(2), requires_grad=True) for _ in range(3))
    a, b = collect((x + y)._node, dz.data, [x, y])
    assert not np.shares_memory(a, b) and not np.shares_memory(a, dz.data)


TABLE = np.random.default_rng(0).normal(size=(6, 3))


def uses_of_a_table(w, order, sparse):
    """Losses that read a table twice by ids, and twice whole (as tied output weights do)."""
    x = Tensor(np.random.default_rng(1).normal(size=(2, 3)))
    uses = [
        lambda: (embedding(w, np.array([4, 1, 4]), sparse) * 3.0).sum(),
        lambda: (embedding(w, np.array([[1], [0]]), sparse) ** 2).sum(),
        lambda: (matmul(x, w.T) ** 2).sum(),
        lambda: w.sum(),  # its gradient is a view of ones, which nobody may write to
    ]
    return [uses[n]() for n in order]


@pytest.mark.parametrize("order", ["01", "10", "02", "20", "03", "30", "0213", "3120", "2301"])
def test_sparse_and_dense_gradients_of_a_table_add_up(order):
    order = [int(n) for n in order]
    grads = []
    for sparse in (False, True):
        w = Tensor(TABLE, requires_grad=True)
        first, *others = uses_of_a_table(w, order, sparse)
        for loss in others:
            first = first + loss
        first.backward()
        grads.append(w.grad)
    only_rows = set(order) <= {0, 1}
    assert isinstance(grads[1], RowGradient) == only_rows  # dense wins
    found = grads[1].dense() if only_rows else grads[1]
    np.testing.assert_allclose(found, grads[0], rtol=1e-12)


@pytest.mark.parametrize("order", ["01", "02", "20", "012"])
def test_sparse_gradients_of_several_backwards_add_up(order):
    whole, parts = (Tensor(TABLE, requires_grad=True) for _ in range(2))
    for loss in uses_of_a_table(whole, map(int, order), sparse=False):
        loss.backward()
    for loss in uses_of_a_table(parts, map(int, order), sparse=True):
        loss.backward()
    found = parts.grad.dense() if isinstance(parts.grad, RowGradient) else parts.grad
    np.testing.assert_allclose(found, whole.grad, rtol=1e-12)


def test_a_sparse_gradient_is_added_into_a_bucket_and_forgotten_by_zero_grad():
    bucket, w = np.zeros(20), Tensor(TABLE, requires_grad=True)
    w.grad = bucket[:18].reshape(6, 3)
    (loss,) = uses_of_a_table(w, [0], sparse=True)
    loss.backward()
    assert w.grad.base is not None and (bucket[:18].reshape(6, 3)[4] == 6).all()
    w.grad = None
    (loss,) = uses_of_a_table(w, [0], sparse=True)
    loss.backward()
    w.zero_grad()
    assert w.grad is None


def test_sparse_gradients_can_be_deferred():
    w = Tensor(TABLE, requires_grad=True)
    (loss,) = uses_of_a_table(w, [0], sparse=True)
    rest = loss.backward(defer=[w])
    assert w.grad is None
    rest()
    assert w.grad.ids.tolist() == [1, 4] and (w.grad.rows == [[3.0] * 3, [6.0] * 3]).all()


def test_sparse_gradients_pass_through_a_checkpoint_and_a_retained_graph():
    w = Tensor(TABLE, requires_grad=True)
    loss = checkpoint(lambda: uses_of_a_table(w, [0], sparse=True)[0])
    loss.backward(retain_graph=True)
    loss.backward()
    assert w.grad.ids.tolist() == [1, 4] and (w.grad.rows == [[6.0] * 3, [12.0] * 3]).all()


def test_twice_as_deep_a_chain_takes_twice_the_calls():
    def calls(depth):
        y = x = Tensor(1.0, requires_grad=True)
        for _ in range(depth):
            y = y + x
        counted = 0

        def count(frame, event, what):
            nonlocal counted
            counted += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            y.backward()
        finally:
            sys.setprofile(None)
        assert x.grad == depth + 1
        return counted

    short, long = calls(5_000), calls(10_000)
    assert short > 5_000 and long <= 2 * short


@pytest.mark.parametrize("returned", [np.ones(2), (np.ones(2),), None])
def test_a_vjp_that_returns_no_tuple_of_one_for_each_parent_is_named(returned):
    x, y = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    z = record(x.data + y.data, (x, y), lambda dz, wanted: returned)
    with pytest.raises(GraphError, match="must return a tuple with one array"):
        z.backward(np.ones(2))
