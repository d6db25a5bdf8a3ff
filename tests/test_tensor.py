import gc
import time

import numpy as np
import pytest

from minipar import ambient
from minipar.errors import GraphError, ShapeMismatch, UsageError
from minipar.ops import add, exp, linear, mul
from minipar.tensor import Tensor, no_grad, record, unbroadcast


def leaf(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32), requires_grad=True)


def test_lists_become_float32_and_arrays_stay_what_they_are():
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor(3.0).dtype == np.float32
    assert Tensor([1, 2]).dtype == np.int64
    assert Tensor(np.float64(1)).dtype == np.float64
    array = np.zeros(3)
    assert Tensor(array).data is array


def test_integers_never_require_a_gradient():
    with pytest.raises(UsageError, match="int64"):
        Tensor([1, 2], requires_grad=True)


def test_a_tensor_of_a_tensor_is_refused():
    with pytest.raises(UsageError, match="detach"):
        Tensor(Tensor(1.0))


def test_properties():
    x = Tensor(np.zeros((2, 3)))
    assert (x.shape, x.ndim, len(x), x.dtype) == ((2, 3), 2, 2, np.float64)
    assert Tensor(2.5).item() == 2.5
    assert x.numpy() is x.data
    assert "requires_grad" in repr(leaf(1)) and "requires_grad" not in repr(x)


def test_a_value_used_twice_gets_both_gradients():
    x = Tensor(3.0, requires_grad=True)
    y = x * x
    (y * y + y).backward()  # x⁴ + x²
    assert x.grad == 4 * 27 + 2 * 3


def test_gradients_of_calls_add_up_in_place():
    x = leaf(2)
    buffer = np.zeros(10, np.float32)
    x.grad = buffer[3:5]
    (x * 2.0).sum().backward()
    (x * 3.0).sum().backward()
    assert (buffer[3:5] == 5).all() and buffer.sum() == 10
    x.zero_grad()
    assert (buffer == 0).all() and x.grad is not None


def test_zero_grad_forgets_a_gradient_of_its_own():
    x = leaf(2)
    (x * 2.0).sum().backward()
    x.zero_grad()
    assert x.grad is None


def test_no_two_gradients_share_memory():
    # a + b hands one and the same dz to both; clipping in place once scaled it twice.
    a, b, dz = leaf(3), leaf(3), np.ones(3, np.float32)
    (a + b).backward(dz)
    assert not np.shares_memory(a.grad, b.grad)
    assert not np.shares_memory(a.grad, dz)
    c = leaf(3)
    c.backward(dz)
    assert not np.shares_memory(c.grad, dz)


def test_a_vjp_that_passes_dz_on_does_not_give_it_away():
    x, dz = leaf(3), np.ones(3, np.float32)
    record(x.data, (x,), lambda dz, wanted: (dz,)).backward(dz)
    assert not np.shares_memory(x.grad, dz)


def test_one_array_returned_for_two_parents_is_copied():
    a, b = leaf(3), leaf(3)

    def vjp(dz, wanted):
        g = dz * 2
        return g, g

    record(a.data + b.data, (a, b), vjp).backward(np.ones(3))
    assert not np.shares_memory(a.grad, b.grad)


def test_views_are_copied_and_new_arrays_are_adopted():
    x, made = leaf(2, 3), []

    def vjp(dz, wanted):
        made.append(dz * 2)
        return (made[0],)

    record(x.data, (x,), vjp).backward(np.ones((2, 3)))
    assert x.grad is made[0]
    y = leaf(2, 3)
    y.T.backward(np.ones((3, 2)))
    assert y.grad.base is None and y.grad.flags.c_contiguous


def test_a_sum_never_writes_into_what_a_vjp_still_sees():
    # Three consumers: the first total is dz itself, which the other branches also get.
    x = leaf(2)
    dz = np.ones(2, np.float32)
    (x + x + x).backward(dz)
    assert (dz == 1).all() and (x.grad == 3).all()


def test_wanted_names_the_parents_that_need_a_gradient():
    seen = []

    def vjp(dz, wanted):
        seen.append(wanted)
        return tuple(dz if w else None for w in wanted)

    parents = (leaf(2), Tensor(np.ones(2)), leaf(2))
    record(np.ones(2), parents, vjp).backward(np.ones(2))
    assert seen == [(True, False, True)]
    assert parents[1].grad is None


def test_backward_twice_says_what_to_do():
    x = leaf(2)
    y = x * 2.0
    z = y.sum()
    z.backward()
    for again in (z, y.sum()):
        with pytest.raises(GraphError, match="forward pass"):
            again.backward()
    assert (x.grad == 2).all()


def test_backward_needs_a_graph_a_number_and_a_fitting_dz():
    with pytest.raises(GraphError, match="requires_grad"):
        Tensor(1.0).backward()
    with pytest.raises(GraphError, match=r"float32\[2\]"):
        (leaf(2) * 2.0).backward()
    with pytest.raises(ShapeMismatch, match=r"\[3\].*\[2\]"):
        (leaf(2) * 2.0).backward(np.ones(3))


def test_no_grad_records_nothing_and_ends():
    with no_grad():
        assert not ambient.grad_enabled.get()
        assert not (leaf(2) * 2.0).requires_grad
    assert (leaf(2) * 2.0).requires_grad


def test_detach_cuts():
    x = leaf(2)
    y = (x * 2.0).detach()
    assert not y.requires_grad and not (y * 2.0).requires_grad


def test_listeners_hear_when_a_gradient_is_final():
    x, y, heard = leaf(2), leaf(2), []
    remove = x.when_final(lambda t: heard.append(t.grad.copy()))
    (x * y + x).sum().backward()
    assert len(heard) == 1 and (heard[0] == 2).all()
    remove()
    (x * y).sum().backward()
    assert len(heard) == 1


def test_frozen_leaves_stay_without_gradient():
    x, y = leaf(2), leaf(2)
    y.requires_grad = False
    (x * y).sum().backward()
    assert y.grad is None and x.grad is not None


@pytest.mark.parametrize(
    ("shape", "to"),
    [((2, 3), (3,)), ((2, 3), (1, 3)), ((2, 3), (2, 1)), ((2, 3), ()), ((4, 2, 3), (2, 1))],
)
def test_unbroadcast_sums_what_was_stretched(shape, to):
    g = np.arange(np.prod(shape), dtype=float).reshape(shape)
    found = unbroadcast(g, to)
    assert found.shape == to
    # the oracle: <g, broadcast(y)> == <found, y>
    y = np.random.default_rng(0).normal(size=to)
    assert np.isclose((g * np.broadcast_to(y, shape)).sum(), (found * y).sum())


def test_an_array_on_the_left_leaves_the_op_to_the_tensor():
    z = np.ones(2, np.float32) * leaf(2) - 1.0
    assert isinstance(z, Tensor) and z.requires_grad


def chain(n: int) -> tuple[Tensor, Tensor]:
    x = Tensor(1.0, requires_grad=True)
    y = x
    for _ in range(n):
        y = add(y, x)
    return x, y


@pytest.mark.slow
def test_deep_chains_neither_recurse_nor_slow_down():
    def seconds(n: int) -> float:
        x, y = chain(n)
        start = time.perf_counter()
        y.backward()
        assert x.grad == n + 1
        return time.perf_counter() - start

    seconds(1000)
    short, long = min(seconds(4_000) for _ in range(3)), min(seconds(40_000) for _ in range(2))
    assert long < 40 * short  # ten times the work; a quadratic walk would take 100 times
    _, y = chain(100_000)
    del y  # dropped without backward: freeing must not recurse either
    gc.collect()


def test_dtype_of_a_gradient_is_that_of_its_parent():
    x = leaf(2)
    mul(x, Tensor(np.ones(2))).backward(np.ones(2))  # float32 · float64 is float64
    assert x.grad.dtype == np.float32


def test_reductions_and_powers_are_methods_and_operators_too():
    x = Tensor(np.array([[1.0, -2.0], [3.0, 5.0]]), requires_grad=True)
    assert x.max().item() == 5 and x.min(axis=0).data.tolist() == [1, -2]
    assert x.var().item() == np.var(x.data) and x.var(ddof=1).item() == np.var(x.data, ddof=1)
    assert (abs(x).data == np.abs(x.data)).all()
    (2.0**x).sum().backward()
    np.testing.assert_allclose(x.grad, 2.0**x.data * np.log(2), rtol=1e-14)


def test_an_array_in_the_place_of_a_tensor_is_named():
    w = Tensor(np.ones((3, 2)), requires_grad=True)
    with pytest.raises(
        UsageError, match=r"linear: float64\[4, 3\] \(of ndarray.*test_tensor.py:\d+"
    ):
        linear(np.ones((4, 3)), w)
    with pytest.raises(UsageError, match=r"exp: .*Is Tensor\(...\) missing"):
        exp(np.ones(3))
    with pytest.raises(
        ShapeMismatch, match=r"linear: x is float64\[4, 5\] \(of ndarray, no Tensor"
    ):
        linear(np.ones((4, 5)), w)


def test_numbers_in_lists_take_the_type_of_the_tensor_beside_them():
    x = leaf(3)
    assert (x * [1, 2, 3]).dtype == (2.5 * x - (1.0, 2.0, 3.0)).dtype == np.float32
