"""In virtual time: while the gradient by x is sent, that by the weight is computed."""

import numpy as np
import pytest

import minipar
from minipar.ops import linear
from minipar.parallel.tensor_parallel import copy_to_shards, overlapped
from minipar.tensor import Tensor, record

cluster = pytest.importorskip("minipar.comm.cluster", reason="needs virtual time")

PRODUCT_S = 3e-3  # each of the three products of a layer
LINKS = {"alpha_s": 1e-3, "beta_s_per_byte": 0.0, "gamma_s_per_byte": 0.0}
LAYERS, D, P = 4, 8, 2


def slow_linear(group):
    """linear, which says how long it computes, also in each half of backward."""

    def op(x, w):
        group.spend(PRODUCT_S)
        z = linear(x, w)
        both = z._node.vjp

        def vjp(dz, wanted):
            group.spend(PRODUCT_S * sum(wanted))
            return both(dz, wanted)

        return record(z.data, (x, w), vjp)

    return op


def backward_s(group, overlap):
    """Seconds of backward through columns behind each other, and the gradients."""
    op, x = slow_linear(group), Tensor(np.ones((4, D)), requires_grad=True)
    weights = [Tensor(np.eye(D) * (n + 1), requires_grad=True) for n in range(LAYERS)]
    z = x
    for w in weights:
        z = overlapped(op, z, (w,), group) if overlap else op(copy_to_shards(z, group), w)
    begin = group.now_ns()
    z.backward(np.ones(z.shape))
    return (group.now_ns() - begin) / 1e9, [y.grad for y in (x, *weights)]


def test_the_all_reduce_hides_behind_the_weight_gradient():
    links = cluster.Cluster(**LINKS)
    plain, gradients = minipar.run(backward_s, P, args=(False,), cluster=links)[0]
    hidden, same = minipar.run(backward_s, P, args=(True,), cluster=links)[0]
    sent = 2 * (P - 1) * LINKS["alpha_s"]  # an all-reduce of a few numbers
    assert plain == pytest.approx(LAYERS * (2 * PRODUCT_S + sent))
    assert hidden == pytest.approx(LAYERS * 2 * PRODUCT_S)
    assert all((a == b).all() for a, b in zip(gradients, same))
