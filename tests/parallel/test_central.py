"""The central form equals one rank; only rank 0 keeps anything, and all bytes go through it."""

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.errors import UsageError
from minipar.events import recording
from minipar.nn import Embedding, Module
from minipar.optim import SGD, AdamW
from minipar.parallel.central import Central
from minipar.random import Init
from minipar.tensor import Tensor
from minipar.testing import check_strategy
from minipar.testing.training import Net


class Vector(Module):
    def __init__(self, n=3):
        self.x = Tensor(np.zeros(n), requires_grad=True)

    def follow(self, g):
        (self.x * g).sum().backward()


def sgd(named):
    return SGD(named, lr=1.0, momentum=0.9)


def test_equals_one_rank():
    check_strategy(Central)


def test_equals_one_rank_on_processes():
    check_strategy(Central, ranks=[2], backend="process")


def test_only_rank_0_has_gradients_and_state_and_all_get_the_norm():
    def work(group):
        net = Vector()
        parallel = Central(net, group, sgd)
        net.follow(1.0 + group.rank)
        parallel.sync_gradients()
        norm = parallel.clip(1.0)
        return net.x.grad is not None, list(parallel.optimizer.state), norm

    one, *others = minipar.run(work, 3)
    norm = 2 * 3**0.5
    assert one == (True, ["x"], pytest.approx(norm))
    assert others == [(False, [], pytest.approx(norm))] * 2


def test_its_state_goes_round_and_comes_back():
    def work(group):
        net = Vector()
        parallel = Central(net, group, lambda named: AdamW(named, lr=0.1))
        net.follow(1.0)
        parallel.sync_gradients()
        parallel.step()
        state = parallel.state_dict()
        again = Central(net, group, lambda named: AdamW(named, lr=0.1))
        again.load_state_dict(state)
        return state, again.state_dict()

    for state, again in minipar.run(work, 2):
        assert state["step"] == 1
        assert state["x/m"] == pytest.approx(0.1)
        assert state.keys() == again.keys()
        assert all((state[name] == again[name]).all() for name in state)


def test_a_rank_without_rows_has_no_part_and_sparse_gradients_are_added_up():
    class Table(Module):
        def __init__(self):
            self.word = Embedding(Init(0, np.float64), 5, 2, sparse=True)

    def work(group):
        net = Table()
        parallel = Central(net, group, lambda named: SGD(named, lr=1.0))
        before = net.word.weight.data.copy()
        if group.rank < 2:
            net.word(np.array([1, 1 + group.rank])).sum().backward()
        parallel.sync_gradients(rows=0 if group.rank == 2 else 1 + 2 * group.rank)
        parallel.step()
        return before - net.word.weight.data

    for moved in minipar.run(work, 3):
        assert moved[:, 0] == pytest.approx([0, 0.25 * 2 + 0.75, 0.75, 0, 0])


def test_a_parameter_without_gradient_is_named():
    def work(group):
        Central(Net(False), group, sgd).sync_gradients()

    with pytest.raises(UsageError, match=r"up\.weight has no gradient"):
        minipar.run(work, 2)


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_the_bytes_are_those_of_the_formula_and_go_through_rank_0(p):
    def work(group):
        net = Vector(600)
        parallel = Central(net, group, sgd, algorithm="naive")
        net.follow(1.0)
        with recording() as log:
            parallel.sync_gradients()
            parallel.step()
        return sum(event.nbytes for event in log if event.op in ("reduce", "broadcast"))

    n, sent = 600 * 8, minipar.run(work, p)
    assert sent[0] == (p - 1) * n
    assert sent[1:] == [n] * (p - 1)
    assert sum(sent) / p == pytest.approx(cost.central_bytes(p, n))
