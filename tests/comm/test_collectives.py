"""Every algorithm against NumPy on stacked inputs, and its messages against the formula."""

import numpy as np
import pytest

from minipar import cost, run
from minipar.comm import collectives
from minipar.events import recording

SIZES = [1, 2, 3, 4, 5, 7, 8]


def inputs(p, n):
    return np.random.default_rng(p * 1000 + n).normal(size=(p, n))


@pytest.mark.parametrize("p", SIZES)
@pytest.mark.parametrize("n", [0, 1, 5, 64])  # empty, fewer than p, uneven, even
def test_every_rank_is_added_once(p, n):
    for total in run(lambda g: g.all_reduce(np.full(n, 2.0**g.rank)), p):
        assert (total == 2**p - 1).all()  # a lost or doubled rank is its bit


@pytest.mark.parametrize("p", SIZES)
def test_all_ranks_get_the_same_bits(p):
    x = inputs(p, 101).astype(np.float32)
    totals = run(lambda g: g.all_reduce(x[g.rank]), p)
    assert len({total.tobytes() for total in totals}) == 1
    assert np.allclose(totals[0], x.sum(0), atol=1e-5)


@pytest.mark.parametrize("p", SIZES)
@pytest.mark.parametrize("n", [0, 1, 5, 64])
def test_reduce_scatter_and_all_gather(p, n):
    x = inputs(p, n)
    parts = run(lambda g: g.reduce_scatter(x[g.rank]), p)
    assert np.allclose(np.concatenate(parts), x.sum(0))
    assert [len(part) for part in parts] == [len(c) for c in np.array_split(x[0], p)]
    for whole in run(lambda g: g.all_gather(x[g.rank]), p):
        assert (whole == x).all()


@pytest.mark.parametrize("p", SIZES)
def test_broadcast_from_every_root(p):
    x = inputs(p, 6)
    for root in range(p):
        for got in run(lambda g, root=root: g.broadcast(x[g.rank], root), p):
            assert (got == x[root]).all()


@pytest.mark.parametrize("p", SIZES)
def test_nobody_leaves_a_barrier_before_all_have_entered(p):
    entered = []

    def work(group):
        for _ in range(group.rank):  # let the others run ahead
            group.poll()
        entered.append(group.rank)
        group.barrier()
        return len(entered)

    assert run(work, p) == [p] * p


def sent(fn, p):
    """(messages, bytes) that left each rank."""

    def work(group):
        with recording() as log:
            fn(group)
        return len(log), sum(event.nbytes for event in log)

    return run(work, p)


@pytest.mark.parametrize("p", range(1, 10))
def test_messages_and_bytes_are_those_of_the_formulas(p):
    n = 8 * 2520  # bytes; 2520 numbers can be cut into 1..9 equal parts
    x = np.zeros(2520)
    expected = cost.ring_all_reduce(p, n)
    assert sent(lambda g: g.all_reduce(x), p) == [(expected.messages, expected.sent)] * p
    expected = cost.ring_reduce_scatter(p, n)
    assert sent(lambda g: g.reduce_scatter(x), p) == [(expected.messages, expected.sent)] * p
    expected = cost.ring_all_gather(p, p * n)
    assert sent(lambda g: g.all_gather(x), p) == [(expected.messages, expected.sent)] * p
    expected = cost.dissemination_barrier(p)
    assert sent(lambda g: g.barrier(), p) == [(expected.messages, expected.sent)] * p
    expected, counted = cost.tree_broadcast(p, n), sent(lambda g: g.broadcast(x), p)
    assert counted[0] == (expected.messages, expected.sent)  # the root's path is the longest
    assert sum(messages for messages, _ in counted) == p - 1  # everybody receives once


@pytest.mark.parametrize("p", SIZES)
def test_additions_are_those_of_the_formula(p):
    added = []

    class Counting:
        """A link that counts what it adds."""

        def __init__(self, group):
            self.rank, self.size, self.sendrecv = group.rank, group.size, group.sendrecv

        def add(self, into, array):
            added.append(array.nbytes)
            into += array

    run(lambda g: collectives.ring_all_reduce(Counting(g), np.zeros(840)), p)
    assert sum(added) == p * cost.ring_all_reduce(p, 8 * 840).added
