import numpy as np
import pytest

import minipar
from minipar import Tensor, ops
from minipar.errors import GraphError
from minipar.tensor import no_grad, record


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


@pytest.mark.parametrize(
    "op",
    [
        lambda x, w: x * w,
        lambda x, w: x / w,
        lambda x, w: (x.reshape(2, 1) @ w.reshape(1, 2)).sum(),
        lambda x, w: ops.linear(x, w.reshape(2, 1)),
    ],
)
def test_a_weight_changed_before_backward_is_found(op):
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    with minipar.checks():
        z = op(x, w).sum()
    w.data *= 2
    with pytest.raises(GraphError, match=r"at .*test_checks.py:\d+: its \w+, float64.*in place"):
        z.backward()


def test_outside_nothing_is_checked():
    x, w = leaf(1.0), leaf(3.0)
    z = x * w
    w.data *= 2
    z.backward()
    assert x.grad == 6  # wrong, and nobody said so


def test_what_is_right_stays_right():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    with minipar.checks():
        ops.gelu(x * w).sum().backward()
        with no_grad():
            assert not (x * w).requires_grad
    free, fixed = leaf(1.0, 2.0), leaf(3.0, 4.0)
    ops.gelu(free * fixed).sum().backward()
    assert (x.grad == free.grad).all() and (w.grad == fixed.grad).all()


def test_a_vjp_that_writes_into_dz_is_found():
    def double(x):
        def vjp(dz, wanted):
            dz *= 2
            return (dz,)

        return record(x.data * 2, (x,), vjp)

    with minipar.checks():
        z = double(leaf(1.0))
    with pytest.raises(GraphError, match=r"double at .*written into dz"):
        z.backward()


def test_a_vjp_that_returns_what_it_keeps_is_found():
    slope = np.full(1, 2.0)

    def double(x):
        return record(x.data * 2, (x,), lambda dz, wanted: (slope[:],))

    with minipar.checks():
        z = double(leaf(1.0))
    slope_before = slope.copy()
    with pytest.raises(GraphError, match="slope, which it also keeps"):
        z.backward()
    assert (slope == slope_before).all()


def test_arrays_in_lists_are_watched_too():
    kept = [np.ones(1), np.ones(1)]

    def op(x):
        return record(x.data, (x,), lambda dz, wanted: (dz * kept[1],))

    with minipar.checks():
        z = op(leaf(1.0))
    kept[1][0] = 5
    with pytest.raises(GraphError, match="its kept"):
        z.backward()
