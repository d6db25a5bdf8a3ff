"""Compressed gradients: each compressor as one process with all replicas; tables, and replicas."""

from functools import partial

import numpy as np
import pytest

import minipar
from minipar.errors import ReplicasDiffer
from minipar.nn import Embedding, Linear, Module
from minipar.optim import SGD
from minipar.parallel.compress import COMPRESSORS, Compressed, Float16, TopK
from minipar.random import Init
from minipar.sparse import RowGradient
from minipar.testing import check_strategy
from minipar.verify import STRATEGIES


@pytest.mark.parametrize("name", COMPRESSORS)
def test_equals_one_process_with_all_replicas(name):
    check_strategy(STRATEGIES[name].make, STRATEGIES[name].serial)


def test_equals_it_on_processes():
    for name in ("int8", "powersgd"):
        held = STRATEGIES[name]
        check_strategy(held.make, held.serial, ranks=[2], backend="process")


class Bag(Module):
    def __init__(self):
        init = Init(0, np.float64)
        self.word = Embedding(init / "word", 50, 4, std=1.0, sparse=True)
        self.out = Linear(init / "out", 4, 3)


def sgd(named):
    return SGD(named, lr=0.1)


def test_the_rows_of_a_table_are_not_compressed():
    def work(group):
        net = Bag()
        parallel = Compressed(net, group, sgd, TopK(0.1))
        net.out(net.word(np.array([1, 2 + group.rank]))).sum().backward()
        own = net.word.weight.grad.dense() * (1 + group.rank) / 3
        parallel.sync_gradients(rows=1 + group.rank)
        assert isinstance(net.word.weight.grad, RowGradient)
        assert np.count_nonzero(net.out.weight.grad) <= 4
        return own, net.word.weight.grad.dense()

    ends = minipar.run(work, 2)
    for _, mean in ends:
        assert mean == pytest.approx(ends[0][0] + ends[1][0])


def test_a_replica_that_drifts_is_found():
    def work(group):
        net = Bag()
        parallel = Compressed(net, group, sgd, Float16(), check_every=1)
        for step in range(3):
            parallel.zero_grad()
            net.out(net.word(np.array([1, 2]))).sum().backward()
            parallel.sync_gradients()
            parallel.step()
            if step == 1 and group.rank == 1:
                net.out.bias.data[0] += 1e-12

    with pytest.raises(ReplicasDiffer, match=r"out\.bias .*rank 1"):
        minipar.run(partial(work), 2)
