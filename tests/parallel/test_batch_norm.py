"""With synchronised batch norm, ranks that share a batch are one rank that has it all."""

import numpy as np
import pytest

import minipar
from minipar.models import ResNet
from minipar.nn import BatchNorm
from minipar.ops import cross_entropy
from minipar.optim import SGD
from minipar.parallel.batch_norm import synchronise
from minipar.random import Draw, Init

ROWS, STEPS = 6, 2


def train(group, cuts, together=True):
    """Weights and running moments after some steps; rank r has rows cuts[r] .. cuts[r + 1]."""
    dice = np.random.default_rng(0)
    model = ResNet(Init(0, np.float64), 3, layers=(1, 1), width=4)
    for name, x in model.named_parameters():
        if name.endswith("norm.weight"):
            x.data[...] = 1  # also where a branch would start at zero and let nothing through
    optimizer = SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    if together:
        synchronise(model, group)
    mine = range(cuts[group.rank], cuts[group.rank + 1])
    seen = {}
    for step in range(STEPS):
        x, y = dice.normal(size=(ROWS, 6, 6, 3)) * 2 + 1, dice.integers(0, 3, ROWS)
        optimizer.zero_grad()
        at = slice(mine.start, mine.stop)
        cross_entropy(model(x[at], Draw(0, step, mine)), y[at]).backward()
        share = len(mine) / ROWS
        for name, parameter in optimizer.parameters.items():
            parameter.grad = group.all_reduce(parameter.grad * share)
            seen[f"{name} in step {step}"] = parameter.grad.copy()
        optimizer.step()
    return seen | model.state_dict()


@pytest.mark.parametrize("cuts", [(0, 3, 6), (0, 1, 6), (0, 2, 4, 6), (0, 3, 4, 6)])
def test_ranks_equal_one_rank_with_the_whole_batch(cuts):
    one = minipar.run(train, 1, args=((0, ROWS),))[0]
    states = minipar.run(train, len(cuts) - 1, args=(cuts,))
    for state in states:
        for name in one:
            np.testing.assert_allclose(state[name], one[name], atol=1e-10, err_msg=name)
            assert (state[name] == states[0][name]).all(), name  # bit for bit


def test_without_it_ranks_are_another_model():
    one = minipar.run(train, 1, args=((0, ROWS),))[0]
    state = minipar.run(train, 2, args=((0, 3, 6), False))[0]
    assert np.abs(state["stem.conv.weight"] - one["stem.conv.weight"]).max() > 1e-3


def test_every_batch_norm_is_found():
    def work(group):
        model = ResNet(Init(), block="bottleneck", layers=(1, 1), width=4)
        synchronise(model, group)
        return [m.total == group.all_reduce for m in model.modules() if isinstance(m, BatchNorm)]

    assert minipar.run(work, 2) == [[True] * 9] * 2
