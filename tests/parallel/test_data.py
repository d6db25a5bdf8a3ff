"""What the forms of data parallel do with parameters that are not like the others.

That they equal one rank, and which mistakes would be seen: test_exact.py.
"""

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.errors import UsageError
from minipar.events import recording
from minipar.nn import Embedding, Linear, Module
from minipar.ops import cross_entropy
from minipar.optim import SGD, Adagrad
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.random import Init
from minipar.sparse import RowGradient
from minipar.tensor import Tensor
from tests.parallel.exact import Net

FORMS = [DataParallel, BucketedDataParallel, OverlappedDataParallel]
ROWS, STEPS = 12, 5


@pytest.mark.parametrize("form", FORMS)
def test_the_call_without_an_optimizer_and_without_rows_goes_on_working(form):
    def work(group):
        model = Net()
        parallel, optimizer = form(model, group), SGD(model.named_parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(Tensor(np.full((2, 5), 1.0 + group.rank))).sum().backward()
            parallel.sync_gradients()
            optimizer.step()
        with pytest.raises(UsageError, match="without make_optimizer"):
            parallel.step()
        return model.state_dict()

    one, *others = minipar.run(work, 3)
    assert all((other[name] == one[name]).all() for other in others for name in one)


@pytest.mark.parametrize("form", FORMS)
def test_a_parameter_that_some_ranks_do_not_use_gets_the_right_mean(form):
    def work(group):
        model = Net()
        parallel = form(model, group)
        for _ in range(2):  # also when the buckets hold what an earlier step left
            parallel.zero_grad()
            x = model.down(Tensor(np.ones((2, 6))))
            if group.rank == 1:
                x = x + model(Tensor(np.ones((2, 5))))
            x.sum().backward()
            parallel.sync_gradients()
        return model.up.weight.grad

    model = Net()
    model(Tensor(np.ones((2, 5)))).sum().backward()
    for mean in minipar.run(work, 3):
        assert np.abs(mean - model.up.weight.grad / 3).max() < 1e-15


@pytest.mark.parametrize("form", FORMS)
def test_what_no_rank_uses_is_named_on_all_of_them_and_frozen_is_left_alone(form):
    def work(group, freeze):
        model = Net()
        for x in (*model.up.parameters(), *model.twice.parameters(), model.frozen.bias):
            x.requires_grad = not freeze
        parallel = form(model, group)
        for _ in range(2):
            parallel.zero_grad()
            model.down(Tensor(np.ones((2, 6)))).sum().backward()
            if freeze:
                parallel.sync_gradients()
            else:
                with pytest.raises(UsageError, match=r"up\.weight has no .*, nor have up\.bias"):
                    parallel.sync_gradients()
        return model.up.weight.grad

    assert minipar.run(work, 2, args=(True,)) == [None, None]
    minipar.run(work, 2, args=(False,))


@pytest.mark.parametrize("form", FORMS)
def test_ranks_without_any_rows_have_no_mean(form):
    def work(group):
        form(Net(), group).sync_gradients(0)

    with pytest.raises(UsageError, match=r"the ranks have \[0.0, 0.0\] rows"):
        minipar.run(work, 2)


class Bag(Module):
    """The sum of the vectors of four words, and a linear layer."""

    def __init__(self, sparse):
        init = Init(0, np.float64)
        self.word = Embedding(init / "word", 50, 4, std=1.0, sparse=sparse)
        self.out = Linear(init / "out", 4, 3)

    def __call__(self, ids):
        return self.out(self.word(ids).sum(axis=1))


def train_bag(group, form, sparse=True, silent=-1):
    """The words of rank 0's rows repeat, so ranks touch different numbers of rows.

    silent: a rank whose loss does not use the table.
    """
    dice = np.random.default_rng(0)
    model = Bag(sparse)
    parallel = form(model, group, lambda named: Adagrad(named, lr=0.1))
    each = ROWS // group.size
    mine = slice(group.rank * each, (group.rank + 1) * each)
    for _ in range(STEPS):
        ids, y = dice.integers(0, 50, size=(ROWS, 4)), dice.integers(0, 3, ROWS)
        ids[:3] = 7
        parallel.zero_grad()
        logits = model.out(Tensor(np.ones((each, 4)))) if group.rank == silent else model(ids[mine])
        cross_entropy(logits, y[mine]).backward()
        parallel.sync_gradients()
        assert isinstance(model.word.weight.grad, RowGradient) == sparse
        parallel.step()
    return model.state_dict() | parallel.state_dict()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p, silent", [(1, -1), (2, -1), (4, -1), (3, 1)])
def test_sparse_gradients_stay_sparse_and_equal_dense_ones(form, p, silent):
    reference = 1 if silent < 0 else p
    one = minipar.run(train_bag, reference, args=(DataParallel, False, silent))[0]
    states = minipar.run(train_bag, p, args=(form, True, silent))
    for state in states:
        assert all(np.abs(state[name] - one[name]).max() < 1e-10 for name in one)
        assert all((state[name] == states[0][name]).all() for name in one)  # bit for bit


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [1, 2, 4])
def test_the_bytes_are_those_of_the_formula(form, p):
    def work(group):
        layer = Linear(Init(0), 512, 512)
        layer.bias.requires_grad = False
        parallel = form(layer, group)
        for _ in range(2):  # before the first step, buckets ask for the number of rows
            parallel.zero_grad()
            layer(Tensor(np.ones((2, 512), np.float32))).sum().backward()
            with recording() as log:
                parallel.sync_gradients()
        sent = {"all_reduce": 0, "all_gather": 0}
        for event in log:
            sent[event.op] += event.nbytes
        return sent

    n = 4 * 512 * 512
    naive = form is DataParallel
    ballot = 0 if naive else 4 * (p + 1)  # the rows of each rank, a flag for the one parameter
    all_sent = minipar.run(work, p)
    reduced = sum(sent["all_reduce"] for sent in all_sent)
    assert reduced == p * cost.data_parallel_bytes(p, n + ballot) == 2 * (p - 1) * (n + ballot)
    for sent in all_sent:
        assert sent["all_gather"] == (p - 1) * 8 * 2 * naive  # the same, in a message of its own
