"""Data parallel equals one rank, and each mistake that would break it is seen."""

import numpy as np
import pytest

import minipar
from minipar.errors import UsageError
from minipar.events import recording
from minipar.nn import Embedding, Linear, Module
from minipar.ops import cross_entropy, tanh
from minipar.optim import SGD, Adagrad, AdamW
from minipar.parallel.data import DataParallel, mean_of_rows
from minipar.random import Init
from minipar.sparse import RowGradient
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


class Bag(Module):
    """The sum of the vectors of four words, and a linear layer."""

    def __init__(self, sparse):
        init = Init(0, np.float64)
        self.word = Embedding(init / "word", 50, 4, std=1.0, sparse=sparse)
        self.out = Linear(init / "out", 4, 3)

    def __call__(self, ids):
        return self.out(self.word(ids).sum(axis=1))


def train_bag(group, sparse=True):
    """As `train`; the words of rank 0's rows repeat, so ranks touch different numbers of rows."""
    dice = np.random.default_rng(0)
    model = Bag(sparse)
    parallel, optimizer = DataParallel(model, group), Adagrad(model.named_parameters(), lr=0.1)
    each = ROWS // group.size
    mine = slice(group.rank * each, (group.rank + 1) * each)
    for _ in range(STEPS):
        ids, y = dice.integers(0, 50, size=(ROWS, 4)), dice.integers(0, 3, ROWS)
        ids[:3] = 7
        optimizer.zero_grad()
        cross_entropy(model(ids[mine]), y[mine]).backward()
        parallel.sync_gradients()
        assert isinstance(model.word.weight.grad, RowGradient) == sparse
        optimizer.step()
    return model.state_dict() | optimizer.state_dict()


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_sparse_gradients_equal_one_rank_with_dense_ones(p):
    one = minipar.run(train_bag, 1, args=(False,))[0]
    states = minipar.run(train_bag, p)
    for state in states:
        assert all(np.abs(state[name] - one[name]).max() < 1e-10 for name in one)
        assert all((state[name] == states[0][name]).all() for name in one)  # bit for bit


@pytest.mark.parametrize("p", [1, 2, 4])  # with 3, all_gather sends more than it must
@pytest.mark.parametrize("n", [100, 1_000_000])
def test_the_bytes_of_a_sparse_mean_grow_with_the_rows_and_not_with_the_table(p, n):
    k, d = 5, 4

    def ids(rank):
        return np.arange(1, k + 1 - rank % 2) * (rank + 1)  # uneven, some in common, none is 0

    def work(group):
        mine = ids(group.rank)
        g = RowGradient(mine, np.full((len(mine), d), 2.0**group.rank), (n, d))
        with recording() as log:
            mean = mean_of_rows(g, group)
        return mean, sum(event.nbytes for event in log)

    touched = sorted({i for r in range(p) for i in ids(r).tolist()})
    total = [sum(2**r for r in range(p) if i in ids(r)) for i in touched]  # each rank is a bit
    for mean, sent in minipar.run(work, p):
        assert sent == (p - 1) * (8 + k * (8 + 8 * d))
        assert mean.ids.tolist() == touched
        assert (mean.rows * p == np.array(total)[:, None]).all()


def test_ranks_that_touch_nothing_get_the_rows_of_the_others():
    def work(group):
        mine = np.arange(3 * group.rank)  # none on rank 0
        return mean_of_rows(RowGradient(mine, np.ones((len(mine), 2)), (9, 2)), group).dense()

    for mean in minipar.run(work, 2):
        assert mean.tolist() == [[0.5, 0.5]] * 3 + [[0.0, 0.0]] * 6
    assert (minipar.run(work, 1)[0] == 0).all()
