import numpy as np
import pytest

import minipar
from minipar.errors import UsageError
from minipar.events import EVERYBODY, last
from minipar.ops import cross_entropy
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.tensor import Tensor
from tests.parallel.exact import Net, batches

FORMS = [DataParallel, BucketedDataParallel, OverlappedDataParallel]


def test_buckets_go_during_backward_and_in_the_same_order_on_all_ranks():
    def work(group):
        model = Net()
        parallel = OverlappedDataParallel(model, group, bucket_bytes=1)
        reversed_order = group.rank == 1
        parts = [model.up.weight, model.twice.weight, model.down.bias]
        total = None
        for x in reversed(parts) if reversed_order else parts:  # the graph's order decides
            part = (x * x).sum()
            total = part if total is None else total + part
        for x in (x for _, x in parallel.trained if all(x is not part for part in parts)):
            total = total + (x * 2).sum()
        total.backward()
        gone = len(parallel._handles)
        parallel.sync_gradients()
        reduced = [e for e in last() if e.op == "all_reduce" and e.peer == EVERYBODY]
        return gone, [e.nbytes for e in reduced], [x.grad for _, x in parallel.trained]

    (gone, order, grads), (gone_1, order_1, grads_1) = minipar.run(work, 2)
    assert gone == gone_1 == len(order) - 1 == len(grads) - 1
    expected = [g.nbytes for g in reversed(grads)]
    expected[-1] += 8 * (2 + len(grads))  # the ballot
    assert order == order_1 == expected
    assert all((g == h).all() for g, h in zip(grads, grads_1))


@pytest.mark.parametrize("form", FORMS)
def test_accumulation_makes_one_reduction_and_equals_the_whole_batch(form):
    x, y = batches(12)[0]
    model = Net()
    cross_entropy(model(Tensor(x)), y).backward()
    whole = {n: g.grad for n, g in model.named_parameters() if g.requires_grad}

    def work(group):
        model = Net()
        parallel = form(model, group)
        micros = np.split(np.arange(12).reshape(2, 6)[group.rank], 3)
        for _ in range(2):
            parallel.zero_grad()
            for rows in micros[:-1]:
                with parallel.no_sync():
                    (cross_entropy(model(Tensor(x[rows])), y[rows]) / 3).backward()
            (cross_entropy(model(Tensor(x[micros[-1]])), y[micros[-1]]) / 3).backward()
            before = len(last())
            parallel.sync_gradients(6)
        reductions = [e for e in last()[before:] if e.op == "all_reduce" and e.peer == EVERYBODY]
        return len(reductions), {n: g.grad for n, g in parallel.trained}

    for reductions, grads in minipar.run(work, 2):
        assert reductions <= (len(grads) if form is DataParallel else 1)
        assert all(np.abs(grads[name] - whole[name]).max() < 1e-14 for name in whole)


def test_a_second_backward_without_no_sync_is_an_error():
    def work(group):
        model = Net()
        OverlappedDataParallel(model, group, bucket_bytes=300)
        for _ in range(2):
            model(Tensor(np.ones((2, 5)))).sum().backward()

    with pytest.raises(UsageError, match=r"with parallel\.no_sync"):
        minipar.run(work, 2)


def test_uneven_rows_that_were_not_announced_are_an_error_on_all_ranks():
    def work(group):
        model = Net()
        parallel = OverlappedDataParallel(model, group)
        model(Tensor(np.ones((2, 5)))).sum().backward()
        with pytest.raises(UsageError, match=r"\[0.25, 0.75\].*announce\(rows\)"):
            parallel.sync_gradients(1 + 2 * group.rank)

    minipar.run(work, 2)


def test_a_step_that_was_given_up_leaves_nothing_behind():
    def work(group):
        model = Net()
        parallel = OverlappedDataParallel(model, group)
        model(Tensor(np.full((2, 5), np.nan))).sum().backward()
        parallel.zero_grad()
        model(Tensor(np.ones((2, 5)))).sum().backward()
        parallel.sync_gradients()
        return model.down.weight.grad

    model = Net()
    model(Tensor(np.ones((2, 5)))).sum().backward()
    for mean in minipar.run(work, 2):
        assert np.abs(mean - model.down.weight.grad).max() < 1e-15
