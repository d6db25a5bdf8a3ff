"""Stages are trained, saved and loaded as the whole model on one rank would be."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.comm.launch import run_threads
from minipar.comm.local import LocalWorld
from minipar.comm.wiring import even_cuts
from minipar.errors import UsageError
from minipar.events import recording
from minipar.nn import Linear, Module, Piece
from minipar.ops import cross_entropy, tanh
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.memory import Peak, held_bytes
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.pipeline_strategy import PipelineParallel, union
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.reducer import Reducer
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.parallel.stages import Stage
from minipar.parallel.units import Unit
from minipar.random import Draw, Init
from minipar.tensor import Tensor
from tests.parallel import piped
from tests.parallel.piped import adamw, batch, furthest, momentum, on_one_rank

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


def overlapped(model, group, make):
    return OverlappedDataParallel(model, group, make, bucket_bytes=300)


class TableLast(piped.Net):
    """The weight that both stages use is in the first bucket: it could go before it is complete."""

    def __init__(self):
        super().__init__()
        self.table = vars(self).pop("table")


def on_a_grid(group, inner, schedule="1f1b", recompute=False, m=3, steps=10):
    """Two pipelines of two stages, each with half of the rows; stages are neighbours."""
    pp = group.split(group.rank // 2)
    dp = group.split(group.rank % 2)
    cuts = [0, 2, 3, 4, 6] if schedule == "interleaved" else None
    pipe = Pipeline(TableLast(), pp, cross_entropy, schedule, cuts, recompute)
    strategy, found = PipelineParallel(pipe, adamw, dp, inner), {}
    cuts = even_cuts(13, 2)
    mine = range(cuts[dp.rank], cuts[dp.rank + 1])
    for step in range(steps):
        x, y = (a[mine.start : mine.stop] for a in batch(step, 13))
        strategy.zero_grad()
        strategy.announce(len(mine))
        loss = pipe.train(micro_batches(x, y, Draw(0, step, mine), m))
        found[f"loss {step}"] = dp.all_reduce(np.array(loss * len(mine) / 13))
        strategy.sync_gradients(len(mine))
        if step % 2:
            found[f"norm {step}"] = np.array(strategy.clip(piped.CLIP))
        strategy.step()
    found |= strategy.state_dict()
    with strategy.whole() as model:
        return found | model.state_dict()


@pytest.mark.parametrize(
    "inner", [DataParallel, BucketedDataParallel, overlapped, Zero1, zero2, Zero3]
)
def test_pipelines_side_by_side_equal_one_rank(inner):
    for found in minipar.run(on_a_grid, 4, args=(inner,)):
        assert furthest(found, on_one_rank(make=adamw)) < 1e-10


@pytest.mark.parametrize("inner", [overlapped, zero2, Zero3])
@pytest.mark.parametrize(
    ("schedule", "recompute"),
    [("gpipe", True), ("zero-bubble", False), ("interleaved", True), ("interleaved", False)],
)
def test_what_sends_during_backward_goes_with_any_schedule(inner, schedule, recompute):
    """Also where each send waits for its receive."""
    args, world = (inner, schedule, recompute, 4, 4), LocalWorld(4, buffer_bytes=0)
    ranks, failed = run_threads(on_a_grid, 4, args, world)
    assert failed is None
    for found in ranks:
        assert furthest(found, on_one_rank(make=adamw, steps=4)) < 1e-10


def sent_after_the_first_backward(patch):
    """Overlapped buckets go before the others have added to them."""
    patch(OverlappedDataParallel, "sends_once", False)
    final = OverlappedDataParallel._when_final

    def once(self, x):
        if self._bucket_of[id(x)] >= len(self._handles):
            final(self, x)

    patch(OverlappedDataParallel, "_when_final", once)


def shared_weight_sent_before_others_have_added(patch):
    stage_init = Stage.__init__

    def mistaken(self, *args):
        stage_init(self, *args)
        self.late = set()

    patch(Stage, "__init__", mistaken)


def only_the_last_micro_batch(patch):
    """Where the slices of several backwards add up."""

    def wait(self):
        if self._under_way is not None:
            s, _, total = self._under_way
            s.grad[...] = total.wait()
            self._under_way = None

    patch(Reducer, "_wait", wait)


def what_others_add_is_not_sent(patch):
    complete = Reducer._complete

    def mistaken(self, sent, filled):
        complete(self, sent, filled * 0)
        self._buckets = [None] * len(self.slices)

    patch(Reducer, "_complete", mistaken)


def kept_as_it_was(patch):
    patch(Unit, "renew", lambda self: None)


MISTAKES = [
    (sent_after_the_first_backward, overlapped),
    (shared_weight_sent_before_others_have_added, overlapped),
    (only_the_last_micro_batch, zero2),
    (what_others_add_is_not_sent, zero2),
    (kept_as_it_was, Zero3),
]


@pytest.mark.parametrize(("mistake", "inner"), MISTAKES)
def test_a_mistake_is_seen(mistake, inner, monkeypatch):
    mistake(monkeypatch.setattr)
    found = minipar.run(on_a_grid, 4, args=(inner, "1f1b", False, 3, 4))
    one = on_one_rank(make=adamw, steps=4)
    assert not max(furthest(state, one) for state in found) < 1e-6


def test_overlapped_buckets_without_a_word_of_the_last_backward_are_an_error():
    def work(group):
        pipe = Pipeline(piped.Net(), group.split(group.rank // 2), cross_entropy)
        dp = group.split(group.rank % 2)
        strategy = PipelineParallel(pipe, adamw, dp, overlapped)
        pipe.no_sync = nullcontext
        strategy.zero_grad()
        pipe.train(micro_batches(*batch(0, 12), Draw(0, 0, range(12)), 3))

    with pytest.raises(UsageError, match="put all but the last into"):
        minipar.run(work, 4)


# -- bytes --------------------------------------------------------------------------------------

D = 120  # large enough for the ring
U = D * D * 8  # bytes of each weight


class Tied(Module):
    """Pieces with a weight each; the first and the last one share it."""

    def __init__(self, layers):
        self.layers = [Linear(F64 / n, D, D, bias=False) for n in range(layers)]

    def pieces(self):
        return [Piece(partial(self.layer, x), x) for x in (*self.layers, self.layers[0])]

    def layer(self, linear, x, draw):
        return tanh(linear(x))


def in_a_step(group, inner, schedule, recompute=False, cuts=(0, 3, 6), m=5):
    """Bytes that a rank sends to the other pipeline; and, between steps and at most, holds."""
    pp, dp = group.split(group.rank // 2), group.split(group.rank % 2)
    model = Tied(cuts[-1] - 1)
    pipe = Pipeline(model, pp, lambda y, _: y.sum(), schedule, cuts, recompute)
    strategy = PipelineParallel(pipe, momentum, dp, inner)
    x, y = Tensor(np.ones((m, D))), np.zeros(m)
    peak = Peak(pipe.stage, strategy.inner)
    for _ in range(2):
        strategy.zero_grad()
        with recording() as log:
            pipe.train(micro_batches(x, y, Draw(0, 0, range(m)), m))
            strategy.sync_gradients()
            strategy.clip(1.0)
            strategy.step()
    sent = [e.nbytes for e in log if e.op in ("reduce_scatter", "all_gather", "all_reduce")]
    large = sum(n for n in sent if n > 2000)
    return large, held_bytes(pipe.stage, strategy.inner) / U, peak.nbytes / U


M = 5  # micro-batches
each_a_bucket = partial(Zero2, bucket_bytes=U)
SENT = [
    (Zero1, "1f1b", False, lambda n, w: cost.zero1_sent(2, n)),
    (each_a_bucket, "1f1b", False, lambda n, w: cost.zero2_piped_sent(2, n, M, w)),
    (each_a_bucket, "zero-bubble", False, lambda n, w: cost.zero2_piped_sent(2, n, M, w)),
    (Zero3, "1f1b", False, lambda n, w: cost.zero3_piped_sent(2, n, M, w)),
    (Zero3, "zero-bubble", False, lambda n, w: cost.zero3_piped_sent(2, n, M, w)),
    (Zero3, "gpipe", True, lambda n, w: cost.zero3_piped_sent(2, n, M, w, g=3)),
]


@pytest.mark.parametrize(("inner", "schedule", "recompute", "formula"), SENT)
def test_the_bytes_sent_are_those_of_the_formula(inner, schedule, recompute, formula):
    ranks = minipar.run(in_a_step, 4, args=(inner, schedule, recompute))
    wanted = [formula(3 * U, U), formula(2 * U, 0)]  # the first stage owns what both use
    assert [sent for sent, _, _ in ranks] == wanted * 2


def test_a_bucket_of_one_chunk_waits_for_that_of_another():
    """Two chunks on each of two stages, four micro-batches: backwards of chunks 1 1 0 0 1 1 0 0.

    The bucket of chunk 1 goes in the first backward. It is complete again in the second, but that
    of chunk 0 comes before it and goes in the third. So each goes for each micro-batch, and what
    another stage uses, too, once more. A bucket over both chunks is complete in the third, the
    fifth and the seventh, and goes once more at the end.
    """
    cuts = (0, 1, 3, 4, 6)
    both = partial(Zero2, bucket_bytes=9 * U)
    for inner, first, last in ((each_a_bucket, 4 + 4 + 1, 3 * 4), (both, 2 * 4, 3 * 4)):
        ranks = minipar.run(in_a_step, 4, args=(inner, "interleaved", False, cuts, 4))
        gathered = 2, 3
        wanted = [(first + gathered[0]) * U / 2, (last + gathered[1]) * U / 2]
        assert [sent for sent, _, _ in ranks] == wanted * 2


@pytest.mark.parametrize(
    ("inner", "kept", "most"),
    [
        (each_a_bucket, cost.zero2_kept, cost.zero2_passing(1, 1)),
        (Zero3, cost.zero3_kept, cost.zero3_passing(1, 1)),
    ],
)
def test_micro_batches_leave_no_more_behind_than_one_batch(inner, kept, most):
    """The last stage: ten weights of its own; a copy of one that the first owns, its gradient."""
    args = (inner, "1f1b", False, (0, 3, 14))
    _, between, peak = minipar.run(in_a_step, 4, args=args)[1]
    assert between == pytest.approx(kept(2, 10, 1) + 2, rel=0.01)
    assert peak == pytest.approx(kept(2, 10, 1) + most + 2, rel=0.05)


# -- micro-batches ------------------------------------------------------------------------------
