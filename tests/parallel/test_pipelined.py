"""A pipeline trains, evaluates, saves and loads as the whole model on one rank would."""

from functools import partial

import numpy as np
import pytest

import minipar
from minipar.comm.wiring import even_cuts
from minipar.errors import ReplicasDiffer, ScheduleError, UsageError
from minipar.models import GPT, MLP, ResNet, ViT
from minipar.nn import Linear, Sequential
from minipar.ops import cross_entropy, mse
from minipar.parallel.pipeline_strategy import PipelineParallel
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.schedule import gpipe, one_f_one_b
from minipar.random import Draw, Init
from minipar.tensor import Tensor, no_grad
from tests.parallel import piped
from tests.parallel.piped import batch, furthest, momentum, on_one_rank, on_stages

F64 = Init(0, np.float64)


# -- the models -------------------------------------------------------------------------------


def gpt():
    return GPT(F64, vocab=5, block=4, layers=2, d=8, heads=2, dropout=0.2)


def mlp():
    return MLP(F64, vocab=5, context=2, d=4, hidden=(8, 6), dropout=0.2)


def vit():
    return ViT(F64, (6, 6, 1), 3, classes=5, layers=2, d=8, heads=2, dropout=0.2)


def resnet():
    return ResNet(F64, classes=5, channels=1, layers=(1, 1), width=4)


def images(step, rows):
    dice = np.random.default_rng(step)
    return dice.normal(size=(rows, 6, 6, 1)), dice.integers(0, 5, rows)


@pytest.mark.parametrize(("build", "batch"), [(gpt, batch), (mlp, batch), (vit, images)])
@pytest.mark.parametrize("stages", [2, 4])
def test_models_equal_one_rank(build, batch, stages):
    options = {"rows": 7, "build": build, "batch": batch, "steps": 4}
    for found in minipar.run(partial(on_stages, **options), stages, args=("1f1b", 3)):
        assert furthest(found, on_one_rank(**options)) < 1e-10


@pytest.mark.parametrize("recompute", [False, True])
def test_batch_norm_is_that_of_each_micro_batch(recompute):
    """Its serial definition: one rank that accumulates the same micro-batches."""
    options = {"rows": 8, "build": resnet, "batch": images, "steps": 4}
    work = partial(on_stages, recompute=recompute, **options)
    serial = on_one_rank(cuts=(0, 3, 6, 8), **options)
    for found in minipar.run(work, 3, args=("gpipe", 3)):
        assert furthest(found, serial) < 1e-10
    assert abs(serial["loss 3"] - on_one_rank(**options)["loss 3"]) > 1e-6


# -- what it does besides -----------------------------------------------------------------------


def test_evaluation_is_that_of_one_rank():
    def work(group, cuts):
        pipe = Pipeline(piped.Net(), group, cross_entropy, "interleaved" if cuts else "1f1b", cuts)
        loss, output = pipe.evaluate(*batch(0, 5))
        return loss, output, [x.grad for x in pipe.stage.parameters()]

    x, y = batch(0, 5)
    with no_grad():
        right = piped.Net()(x)
        wanted = cross_entropy(right, y).item()
    for cuts in (None, [0, 1, 2, 3, 6]):
        first, last = minipar.run(work, 2, args=(cuts,))
        assert first[0] == last[0] == pytest.approx(wanted, abs=1e-14)
        assert first[1] is None and np.allclose(last[1], right.data, atol=1e-13)
        assert not any(g is not None for g in first[2] + last[2])


def test_what_lies_on_other_stages_takes_no_memory():
    def work(group):
        pipe = Pipeline(piped.Net(), group, cross_entropy)
        strategy = PipelineParallel(pipe, momentum)
        with strategy.whole():
            pass
        mine = pipe.stage.owned.keys() | pipe.stage.borrowed.keys()
        named = pipe.model.named_parameters()
        return {n: (x.data.strides == (0,) * x.ndim, n in mine) for n, x in named}

    for found in minipar.run(work, 3):
        assert all(nothing != here for nothing, here in found.values())


def test_all_begin_with_the_weights_of_rank_0():
    def work(group):
        model = piped.Net()
        if group.rank:
            for x in model.parameters():
                x.data += group.rank
        strategy = PipelineParallel(Pipeline(model, group, cross_entropy), momentum)
        with strategy.whole() as whole:
            return whole.state_dict()

    for state in minipar.run(work, 3):
        assert all((a == state[n]).all() for n, a in piped.Net().state_dict().items())


def test_other_models_are_refused():
    with pytest.raises(ReplicasDiffer):
        minipar.run(lambda g: Pipeline(piped.Net(2 + g.rank), g, cross_entropy), 2)


# -- checkpoints --------------------------------------------------------------------------------


def test_micro_batches_are_the_batch_in_order():
    x, y, draw = np.arange(14).reshape(7, 2), np.arange(7), Draw(3, 4, range(10, 17))
    parts = micro_batches((Tensor(x * 1.0), {"ids": x, "none": None}), y, draw, 3)
    assert [len(part.y) for part in parts] == np.diff(even_cuts(7, 3)).tolist()
    assert np.concatenate([part.y for part in parts]).tolist() == y.tolist()
    assert (np.concatenate([part.x[0].data for part in parts]) == x).all()
    assert (np.concatenate([part.x[1]["ids"] for part in parts]) == x).all()
    assert [r for part in parts for r in part.draw.rows] == list(draw.rows)
    assert {(part.draw.seed, part.draw.step) for part in parts} == {(3, 4)}
    assert [part.share for part in parts] == [len(part.y) / 7 for part in parts]


def test_shares_may_be_those_of_tokens_that_count():
    y = np.array([[1, -1], [1, 1], [-1, -1], [1, 1]])
    parts = micro_batches(y, y, Draw(0, 0, range(4)), 2, weigh=lambda y: int((y >= 0).sum()))
    assert [part.share for part in parts] == [3 / 5, 2 / 5]


@pytest.mark.parametrize("m", [0, 4])
def test_there_must_be_a_row_for_each(m):
    with pytest.raises(UsageError, match="3 rows cannot be cut"):
        micro_batches(np.zeros(3), np.zeros(3), Draw(0, 0, range(3)), m)


def test_interleaved_refuses_micro_batches_that_its_stages_do_not_divide():
    work = partial(on_stages, cuts=[0, 1, 2, 3, 6])
    with pytest.raises(UsageError, match="take a multiple of 2"):
        minipar.run(work, 2, args=("interleaved", 3))


def test_a_schedule_must_fit():
    with pytest.raises(
        UsageError, match="is for 3 stages, 4 micro-batches and 1 chunks; here are 2"
    ):
        minipar.run(on_stages, 2, args=(lambda s, m: gpipe(3, 4), 4))
    with pytest.raises(ScheduleError, match="stage 0 never does B3"):
        minipar.run(on_stages, 2, args=(lambda s, m: [p[:-1] for p in one_f_one_b(s, m)], 4))


def test_stages_without_weights_or_with_frozen_ones():
    def work(group):
        layers = [Linear(F64 / n, 3, 3) for n in range(3)]
        layers[0].weight.requires_grad = layers[0].bias.requires_grad = False
        model = Sequential(layers[0], minipar.ops.tanh, layers[1], minipar.ops.tanh, layers[2])
        pipe = Pipeline(model, group, mse, "zero-bubble", [0, 1, 2, 5])
        strategy, x = PipelineParallel(pipe, momentum), np.ones((4, 3))
        pipe.train(micro_batches(Tensor(x), x, Draw(0, 0, range(4)), 3))
        strategy.sync_gradients()
        norm = strategy.clip(0.1)
        strategy.step()
        return norm, [x.grad is not None for x in pipe.stage.parameters()]

    found = minipar.run(work, 3)
    assert [grads for _, grads in found] == [[False] * 2, [], [True] * 4]
    assert found[0][0] == found[1][0] == found[2][0] > 0
