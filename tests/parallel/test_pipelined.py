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
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.pipelined import Pipeline, PipelineParallel, micro_batches, union
from minipar.parallel.schedule import gpipe, one_f_one_b
from minipar.parallel.sharded import Zero1, Zero2
from minipar.random import Draw, Init
from minipar.tensor import Tensor, no_grad
from tests.parallel import piped
from tests.parallel.piped import adamw, batch, furthest, momentum, on_one_rank, on_stages

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


def go_on(group, state, steps, cuts=None):
    """Load what a run of some layout has saved, train, save."""
    schedule = "1f1b" if cuts is None else "interleaved"
    pipe = Pipeline(piped.Net(), group, cross_entropy, schedule, cuts)
    strategy = PipelineParallel(pipe, adamw)
    if state is not None:
        with strategy.whole() as model:
            model.load_state_dict({n: a for n, a in state.items() if n in pipe.stage.users})
        rest = {n: a for n, a in state.items() if n not in pipe.stage.users}
        strategy.load_state_dict(rest)
    for step in steps:
        x, y = batch(step, 12)
        strategy.zero_grad()
        pipe.train(micro_batches(x, y, Draw(0, step, range(12)), 4))
        strategy.sync_gradients()
        strategy.step()
    saved = strategy.state_dict()
    with strategy.whole() as model:
        return saved | model.state_dict()


LAYOUTS = [(1, None), (3, None), (2, [0, 1, 2, 4, 6])]


@pytest.mark.parametrize(("s", "cuts"), LAYOUTS)
def test_a_checkpoint_goes_through_any_layout_bit_by_bit(s, cuts):
    (state,) = minipar.run(go_on, 1, args=(None, range(2)))
    optimizer = adamw(piped.Net().named_parameters())
    assert state.keys() == optimizer.state_dict().keys() | piped.Net().state_dict().keys()
    for loaded in minipar.run(go_on, s, args=(state, (), cuts)):
        assert loaded.keys() == state.keys()
        assert all((loaded[n] == state[n]).all() for n in state)


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 2), (2, 0)])
def test_a_run_goes_on_in_another_layout(before, after):
    (s, cuts), (t, others) = LAYOUTS[before], LAYOUTS[after]
    half = minipar.run(go_on, s, args=(None, range(3), cuts))[0]
    (wanted,) = minipar.run(go_on, 1, args=(None, range(6)))
    for found in minipar.run(go_on, t, args=(half, range(3, 6), others)):
        assert furthest(found, wanted) < 1e-10


def test_state_of_another_model_is_refused():
    def work(group, extra):
        strategy = PipelineParallel(Pipeline(piped.Net(), group, cross_entropy), adamw)
        strategy.load_state_dict({**strategy.state_dict(), extra: np.zeros(2)})

    with pytest.raises(UsageError, match=r"up\.weight/m is of no parameter"):
        minipar.run(work, 2, args=("up.weight/m",))
    with pytest.raises(UsageError, match="unexpected"):
        minipar.run(work, 2, args=("out.weight/v2",))


def test_union_of_what_all_ranks_have():
    def work(group):
        return union({f"of {group.rank}": np.full(group.rank, 7.0), "all": np.array(3)}, group)

    for found in minipar.run(work, 3):
        assert {n: a.tolist() for n, a in found.items()} == {
            "of 0": [], "of 1": [7.0], "of 2": [7.0, 7.0], "all": 3
        }  # fmt: skip


# -- several pipelines --------------------------------------------------------------------------


def zero2(model, group, make):
    return Zero2(model, group, make, bucket_bytes=300)


def on_a_grid(group, inner):
    """Two pipelines of two stages, each with half of the rows; stages are neighbours."""
    pp = group.split(group.rank // 2)
    dp = group.split(group.rank % 2)
    pipe = Pipeline(piped.Net(), pp, cross_entropy)
    strategy, found = PipelineParallel(pipe, adamw, dp, inner), {}
    cuts = even_cuts(13, 2)
    mine = range(cuts[dp.rank], cuts[dp.rank + 1])
    for step in range(10):
        x, y = (a[mine.start : mine.stop] for a in batch(step, 13))
        strategy.zero_grad()
        strategy.announce(len(mine))
        loss = pipe.train(micro_batches(x, y, Draw(0, step, mine), 3))
        found[f"loss {step}"] = dp.all_reduce(np.array(loss * len(mine) / 13))
        strategy.sync_gradients(len(mine))
        if step % 2:
            found[f"norm {step}"] = np.array(strategy.clip(piped.CLIP))
        strategy.step()
    found |= strategy.state_dict()
    with strategy.whole() as model:
        return found | model.state_dict()


@pytest.mark.parametrize("inner", [DataParallel, BucketedDataParallel, Zero1, zero2])
def test_pipelines_side_by_side_equal_one_rank(inner):
    for found in minipar.run(on_a_grid, 4, args=(inner,)):
        assert furthest(found, on_one_rank(make=adamw)) < 1e-10


# -- micro-batches ------------------------------------------------------------------------------


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
