import numpy as np
import pytest

import minipar
from minipar.errors import CommError
from minipar.nn import BatchNorm
from minipar.ops import cross_entropy
from minipar.parallel.batch_norm import synchronise
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.join import joined
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.random import Init
from minipar.tensor import Tensor
from tests.parallel.exact import Net, adam

BATCHES = [[4, 3, 2], [4], [], [4, 1]]  # rows of the batches of each rank


def batches_of(rank):
    dice = np.random.default_rng(rank)
    return [(dice.normal(size=(n, 5)), dice.integers(0, 3, n)) for n in BATCHES[rank]]


def train(group, form):
    model = Net()
    parallel = form(model, group, adam, check_every=1)
    for batch in joined(batches_of(group.rank), group):
        rows = 0 if batch is None else len(batch[1])
        parallel.zero_grad()
        if hasattr(parallel, "announce"):
            parallel.announce(rows)
        if batch is not None:
            cross_entropy(model(Tensor(batch[0])), batch[1]).backward()
        parallel.sync_gradients(rows)
        parallel.step()
    return model.state_dict()


@pytest.mark.parametrize("form", [DataParallel, BucketedDataParallel, OverlappedDataParallel])
def test_ranks_with_unequal_numbers_of_batches_equal_one_rank_with_all_rows(form):
    model = Net()
    optimizer = adam(model.named_parameters())
    ranks = [batches_of(rank) for rank in range(4)]
    for step in range(3):
        parts = [batches[step] for batches in ranks if step < len(batches)]
        x, y = (np.concatenate(arrays) for arrays in zip(*parts))
        optimizer.zero_grad()
        cross_entropy(model(Tensor(x)), y).backward()
        optimizer.step()
    one = model.state_dict()
    for state in minipar.run(train, 4, args=(form,)):
        assert all(np.abs(state[name] - one[name]).max() < 1e-10 for name in one)


def test_every_rank_gets_as_many_items_as_the_one_with_most():
    def work(group):
        return list(joined(range(group.rank), group))

    assert minipar.run(work, 3) == [[None, None], [0, None], [0, 1]]


def test_synchronised_batch_norm_does_not_go_with_it_and_says_so():
    def work(group):
        norm = BatchNorm(Init(0), 3)
        parallel = DataParallel(norm, group)
        synchronise(norm, group)
        for batch in joined([np.ones((2, 3), np.float32)] * (1 + group.rank), group):
            parallel.zero_grad()
            if batch is not None:
                norm(Tensor(batch), minipar.random.Draw(0, 0, range(2))).sum().backward()
            parallel.sync_gradients(0 if batch is None else 2)

    with pytest.raises(CommError, match=r"all_gather.*all_reduce|all_reduce.*all_gather"):
        minipar.run(work, 2)
