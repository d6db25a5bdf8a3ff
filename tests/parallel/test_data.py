"""Data parallel equals one rank, and each mistake that would break it is seen."""

import numpy as np
import pytest

import minipar
from minipar.errors import UsageError
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy, tanh
from minipar.optim import SGD, AdamW
from minipar.parallel.data import DataParallel
from minipar.random import Init
from minipar.tensor import Tensor

ROWS, STEPS = 12, 10


class Net(Module):
    def __init__(self, seed):
        init = Init(seed, np.float64)
        self.up, self.down = Linear(init / "up", 5, 7), Linear(init / "down", 7, 3)

    def __call__(self, x):
        return self.down(tanh(self.up(x)))


def train(group, make_optimizer, seed_of_rank=lambda rank: 0):
    """Weights and optimizer state after some steps on this rank's rows of fixed data."""
    dice = np.random.default_rng(0)
    model = Net(seed_of_rank(group.rank))
    parallel = DataParallel(model, group)
    optimizer = make_optimizer(model.named_parameters())
    each = ROWS // group.size
    mine = slice(group.rank * each, (group.rank + 1) * each)
    for _ in range(STEPS):
        x, y = dice.normal(size=(ROWS, 5)), dice.integers(0, 3, ROWS)
        optimizer.zero_grad()
        cross_entropy(model(Tensor(x[mine])), y[mine]).backward()
        parallel.sync_gradients()
        optimizer.step()
    return model.state_dict() | optimizer.state_dict()


def adamw(named):
    return AdamW(named, lr=0.01, weight_decay=0.1)


def momentum(named):
    return SGD(named, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("make_optimizer", [momentum, adamw])
@pytest.mark.parametrize("backend", ["local", "process"])
def test_equals_one_rank(make_optimizer, backend):
    one = minipar.run(train, 1, args=(make_optimizer,))[0]
    for p in (2, 3, 4):
        states = minipar.run(train, p, args=(make_optimizer,), backend=backend)
        for state in states:
            assert state.keys() == one.keys()
            assert all(np.abs(state[name] - one[name]).max() < 1e-10 for name in one)
            assert all((state[name] == states[0][name]).all() for name in one)  # bit for bit


def test_replicas_that_begin_apart_get_the_weights_of_rank_0():
    one = minipar.run(train, 1, args=(momentum,))[0]
    for state in minipar.run(train, 3, args=(momentum, lambda rank: rank)):
        assert all(np.abs(state[name] - one[name]).max() < 1e-10 for name in one)


def test_frozen_parameters_are_left_alone_and_a_missing_gradient_is_named():
    def work(group, freeze):
        model = Net(0)
        model.up.weight.requires_grad = not freeze
        parallel = DataParallel(model, group)
        loss = model.down(Tensor(np.ones((2, 7)))).sum()  # up is not used
        loss.backward()
        if freeze:
            model.up.bias.grad = np.zeros(7)
        parallel.sync_gradients()
        return model.up.weight.grad

    assert minipar.run(work, 2, args=(True,)) == [None, None]
    with pytest.raises(UsageError, match=r"up\.weight has no gradient"):
        minipar.run(work, 2, args=(False,))
