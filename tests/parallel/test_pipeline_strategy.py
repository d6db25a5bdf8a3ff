"""Stages are trained, saved and loaded as the whole model on one rank would be."""

import numpy as np
import pytest

import minipar
from minipar.comm.wiring import even_cuts
from minipar.errors import UsageError
from minipar.ops import cross_entropy
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.pipeline_strategy import PipelineParallel, union
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.sharded import Zero1, Zero2
from minipar.random import Draw, Init
from tests.parallel import piped
from tests.parallel.piped import adamw, batch, furthest, on_one_rank

F64 = Init(0, np.float64)


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
