import math

import numpy as np
import pytest

import minipar
from minipar.errors import ReplicasDiffer
from minipar.nn import BatchNorm
from minipar.parallel.batch_norm import synchronise
from minipar.parallel.data import DataParallel
from minipar.parallel.strategy import Strategy
from minipar.random import Draw, Init
from minipar.tensor import Tensor
from tests.parallel.exact import Net, momentum


def test_a_replica_that_drifts_is_named_with_parameter_and_step():
    def work(group):
        model = Net()
        parallel: Strategy = DataParallel(model, group, momentum, check_every=2)
        for step in range(10):
            parallel.zero_grad()
            model(Tensor(np.ones((2, 5)))).sum().backward()
            parallel.sync_gradients()
            parallel.step()
            if step == 4 and group.rank == 1:
                model.twice.bias.data[3] += 1e-15

    said = r"after step 6 .* twice\.bias has other bits on rank 1 than on rank 0"
    with pytest.raises(ReplicasDiffer, match=said):
        minipar.run(work, 3)


def test_clipping_shrinks_the_mean_gradient_by_its_whole_norm():
    def work(group):
        model = Net()
        parallel = DataParallel(model, group, momentum)
        model(Tensor(np.full((2, 5), 1.0 + group.rank))).sum().backward()
        parallel.sync_gradients()
        before = math.sqrt(sum((x.grad**2).sum() for _, x in parallel.trained))
        norm = parallel.clip(0.5)
        return before, norm, math.sqrt(sum((x.grad**2).sum() for _, x in parallel.trained))

    for before, norm, after in minipar.run(work, 2):
        assert abs(norm - before) < 1e-12 and abs(after - 0.5) < 1e-12


def test_the_state_of_the_optimizer_goes_out_and_in():
    def work(group):
        parallel = DataParallel(Net(), group, momentum)
        state = {name: array + 1 for name, array in parallel.state_dict().items()}
        parallel.load_state_dict(state)
        return all((parallel.state_dict()[name] == state[name]).all() for name in state)

    assert minipar.run(work, 2) == [True, True]


@pytest.mark.parametrize("together", [True, False])
def test_moments_agree_if_batch_norm_is_synchronised_else_those_of_rank_0_count(together):
    def work(group):
        norm = BatchNorm(Init(0, np.float64), 3)
        parallel = DataParallel(norm, group)
        if together:
            synchronise(norm, group)
        x = np.random.default_rng(group.rank).normal(size=(4, 3))
        norm(Tensor(x), Draw(0, 0, range(4))).sum().backward()
        parallel.sync_gradients(4)
        own = norm.state_dict()
        parallel.sync_buffers()
        return own, norm.state_dict()

    states = minipar.run(work, 3)
    first = states[0][0]
    same = [all((own[n] == first[n]).all() for n in own) for own, _ in states]
    assert same == [True, together, together]
    assert all((state[n] == first[n]).all() for _, state in states for n in state)
