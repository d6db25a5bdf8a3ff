"""The conjugate pairs: forward and backward against NumPy on what all ranks have, stacked."""

import numpy as np
import pytest

import minipar
from minipar.errors import ShapeMismatch
from minipar.parallel.tensor_parallel import (
    copy_to_shards,
    gather_features,
    gather_positions,
    own_positions,
    scatter_positions,
    sum_over_shards,
)
from minipar.tensor import Tensor

B, T, D = 2, 12, 3


def numbers(name, shape):
    """Other ones on each rank and for each name."""
    return lambda r: np.random.default_rng([r, *name.encode()]).normal(size=shape)


def both_ways(op, x_of, dz_of):
    """[(z, dx) of each rank], if rank r has x_of(r) and the gradient dz_of(r)."""

    def work(group):
        x = Tensor(x_of(group.rank), requires_grad=True)
        z = op(x, group)
        z.backward(dz_of(group.rank))
        return z.data, x.grad

    return lambda p: minipar.run(work, p)


def cut(x, r, p, axis=1):
    return np.array_split(x, p, axis=axis)[r]


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_f_and_g_are_each_the_other_backward(p):
    x, dz = numbers("x", (B, T, D)), numbers("dz", (B, T, D))
    sum_x, sum_dz = (sum(f(r) for r in range(p)) for f in (x, dz))
    for r, (z, dx) in enumerate(both_ways(copy_to_shards, x, dz)(p)):
        np.testing.assert_array_equal(z, x(r))
        np.testing.assert_allclose(dx, sum_dz, atol=1e-14)
    for r, (z, dx) in enumerate(both_ways(sum_over_shards, x, dz)(p)):
        np.testing.assert_allclose(z, sum_x, atol=1e-14)
        np.testing.assert_array_equal(dx, dz(r))


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_so_are_those_of_sequence_parallel(p):
    own, whole = numbers("own", (B, T // p, D)), numbers("whole", (B, T, D))
    together = np.concatenate([own(r) for r in range(p)], axis=1)
    total = sum(whole(r) for r in range(p))
    for r, (z, dx) in enumerate(both_ways(gather_positions, own, whole)(p)):
        np.testing.assert_array_equal(z, together)
        np.testing.assert_allclose(dx, cut(total, r, p), atol=1e-14)
    for r, (z, dx) in enumerate(both_ways(scatter_positions, whole, own)(p)):
        np.testing.assert_allclose(z, cut(total, r, p), atol=1e-14)
        np.testing.assert_array_equal(dx, together)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_what_is_gathered_or_picked_goes_back_where_it_came_from(p):
    own, dz = numbers("own", (B, T, D)), numbers("same", (B, T, p * D))
    for r, (z, dx) in enumerate(both_ways(gather_features, own, lambda r: dz(0))(p)):
        np.testing.assert_array_equal(z, np.concatenate([own(q) for q in range(p)], axis=-1))
        np.testing.assert_array_equal(dx, cut(dz(0), r, p, axis=-1))
    part = numbers("part", (B, T // p, D))
    for r, (z, dx) in enumerate(both_ways(own_positions, own, part)(p)):
        np.testing.assert_array_equal(z, cut(own(r), r, p))
        expected = np.zeros((B, T, D))
        cut(expected, r, p)[...] = part(r)
        np.testing.assert_array_equal(dx, expected)


def test_positions_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ShapeMismatch, match="cannot be shared out evenly among 5 ranks"):
        minipar.run(lambda group: own_positions(Tensor(np.ones((B, T, D))), group), 5)
