"""Tensor parallel training equals one rank, and each classic mistake would be seen."""

import threading
from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest

import minipar
from minipar.errors import ReplicasDiffer, ShapeMismatch, UsageError
from minipar.models import GPT, MLP
from minipar.models import mlp as mlp_module
from minipar.ops import cross_entropy, linear, tanh
from minipar.optim import AdamW, clip_grad_norm
from minipar.parallel import shards, tensor_strategy, vocab_loss
from minipar.parallel.data import DataParallel
from minipar.parallel.memory import held_bytes
from minipar.parallel.mesh import Mesh
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.parallel.sharding import Replicated, Sharded
from minipar.parallel.shards import Shards
from minipar.parallel.tensor_layers import ColumnLinear, RowLinear, TensorKit
from minipar.parallel.tensor_strategy import TensorParallel
from minipar.random import Draw, Init
from minipar.testing import tensor
from minipar.testing.tensor import CASES, difference
from minipar.testing.training import adamw

CLIPPED = CASES[1:]
FEW = 4  # steps


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("p", [1, 3, *(pytest.param(p, marks=pytest.mark.slow) for p in (2, 4, 8))])
def test_ten_steps_equal_one_rank(p, sequence):
    assert difference(p, "local", sequence).error < 1e-10


@pytest.mark.slow
def test_eight_ranks_of_which_two_have_only_padding():
    assert difference(8, "local", sequence=True, cases=CLIPPED).error < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("p", [2, 4])
def test_processes_equal_one_rank(p, sequence):
    assert difference(p, "process", sequence).error < 1e-10


@pytest.mark.parametrize("sequence", [False, True])
def test_overlapping_equals_one_rank(sequence, monkeypatch):
    monkeypatch.setattr(tensor, "STEPS", 2)
    assert difference(2, "local", sequence, overlap=True, cases=CLIPPED).error < 1e-10


# -- mistakes ---------------------------------------------------------------------------------


def g_without_all_reduce(patch):
    patch(shards, "sum_over_shards", lambda x, group: x)


def f_without_all_reduce(patch):
    patch(shards, "copy_to_shards", lambda x, group: x)


def twice(f):
    return lambda x, group: f(f(x, group), group)


def g_doubled(patch):
    patch(shards, "sum_over_shards", twice(shards.sum_over_shards))


def f_doubled(patch):
    patch(shards, "copy_to_shards", twice(shards.copy_to_shards))


def row_bias_on_every_rank(patch):
    def call(self, x):
        return self.shards.leave(linear(x, self.weight, self.bias), self.name)

    patch(RowLinear, "__call__", call)


def row_bias_gradient_reduced_again(patch):
    init = RowLinear.__init__

    def mistaken(self, *args, **options):
        init(self, *args, **options)
        self.layout["bias"] = Replicated(summed=True)

    patch(RowLinear, "__init__", mistaken)


def every_rank_takes_shard_0(patch):
    cut = Sharded.cut
    patch(Sharded, "cut", lambda self, whole, r, p: cut(self, whole, 0, p))


def rows_cut_where_columns_should_be(patch):
    """It only fits where the layer is square."""
    take = Shards.slice

    def mistaken(self, whole, how):
        square = whole.ndim == 2 and whole.shape[0] == whole.shape[1]
        return take(self, whole.T if square else whole, how)

    patch(Shards, "slice", mistaken)
    patch(tensor.GPT, "load_state_dict", lambda self, state, strict=True: None)  # as it was drawn


def qkv_cut_contiguously(patch):
    def qkv(self, init, d, heads):
        return ColumnLinear(init, d, 3 * d, self.shards)

    patch(TensorKit, "qkv", qkv)


def norm_counts_replicated_parameters_on_every_rank(patch):
    def clip(named, table, group, max_norm, over):
        grads = [x.grad for _, x in named]
        norm = float(np.sqrt(group.all_reduce(np.array(sum((g**2).sum() for g in grads)))))
        for g in grads:
            g *= min(1, max_norm / norm)
        return norm

    patch(tensor_strategy, "clip_sharded_norm", clip)


def maximum_of_the_own_classes(patch):
    patch(vocab_loss, "_largest", lambda logits, group: logits.max(axis=1))


def target_looked_up_on_every_rank(patch):
    """Where the target is another rank's, the nearest own class is taken for it."""

    def mistaken(index, counted, classes):
        rows = np.flatnonzero(counted)
        return rows, np.clip(index[rows] - classes.start, 0, len(classes) - 1)

    patch(vocab_loss, "_targets_here", mistaken)


def ignored_tokens_counted(patch):
    patch(vocab_loss, "_share", lambda counted: counted / counted.size)


def dropout_of_the_first_positions(patch):
    keep = Draw.keep_part
    patch(
        Draw, "keep_part", lambda self, name, shape, p, part, of: keep(self, name, shape, p, 0, of)
    )


def gradients_of_norms_not_summed(patch):
    patch(tensor_strategy, "sum_gradients", lambda named, table, group: None)


def gradients_of_norms_summed_twice(patch):
    add = tensor_strategy.sum_gradients
    patch(tensor_strategy, "sum_gradients", lambda *args: (add(*args), add(*args)))


MISTAKES = (
    g_without_all_reduce,
    f_without_all_reduce,
    g_doubled,
    f_doubled,
    row_bias_on_every_rank,
    row_bias_gradient_reduced_again,
    every_rank_takes_shard_0,
    rows_cut_where_columns_should_be,
    qkv_cut_contiguously,
    norm_counts_replicated_parameters_on_every_rank,
    maximum_of_the_own_classes,
    target_looked_up_on_every_rank,
    ignored_tokens_counted,
)
SEQUENCE_MISTAKES = (
    dropout_of_the_first_positions,
    gradients_of_norms_not_summed,
    gradients_of_norms_summed_twice,
)


@pytest.mark.parametrize("mistake", (*MISTAKES, *SEQUENCE_MISTAKES))
def test_a_mistake_is_seen(mistake, monkeypatch):
    monkeypatch.setattr(tensor, "STEPS", 2)
    mistake(monkeypatch.setattr)
    sequence = mistake in SEQUENCE_MISTAKES
    with np.errstate(all="ignore"):
        assert difference(2, "local", sequence, cases=CLIPPED).error > 1e-6


# -- MLP: an activation follows the rows --------------------------------------------------------

HIDDEN = ((24, 24), (24,))  # a pair of square layers; a column whose outputs are gathered


def mlp(hidden, **options):
    model = MLP(
        Init(0, np.float64), vocab=10, context=4, d=6, hidden=hidden, dropout=0.2, **options
    )
    for x in model.parameters():
        if x.ndim == 1:
            x.data += 0.3  # the same on all shards
    return model


def mlp_loss(model, loss):
    ids = np.random.default_rng(0).integers(0, 10, size=(3, 9))
    value = loss(model(ids[:, :-1], Draw(0, 0, range(3))), ids[:, 1:])
    value.backward()
    return value.item()


def mlp_on_many(group, hidden):
    model = mlp(hidden, kit=TensorKit(group))
    found = {"loss": np.array(mlp_loss(model, model.output.loss))}
    grads = {name: x.grad for name, x in model.named_parameters()}
    return found | tensor.whole_state(grads, tensor.sharding(model), group)


def mlp_difference(p, hidden):
    model = mlp(hidden)
    one = {"loss": np.array(mlp_loss(model, cross_entropy))}
    one |= {name: x.grad for name, x in model.named_parameters()}
    return max(
        np.abs(found[name] - one[name]).max()
        for found in minipar.run(mlp_on_many, p, args=(hidden,))
        for name in one
    )


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("p", [2, 3, 8])
def test_the_gradients_of_an_mlp_equal_one_rank(p, hidden):
    assert mlp_difference(p, hidden) < 1e-12


def activation_before_the_sum(patch):
    partial = threading.local()

    def row(self, x):
        partial.layer, partial.z = self, linear(x, self.weight)
        return partial.z

    def act(x):
        if getattr(partial, "z", None) is not x:
            return tanh(x)
        layer = partial.layer
        return layer.shards.leave(tanh(x), layer.name) + layer.bias

    patch(RowLinear, "__call__", row)
    patch(mlp_module, "tanh", act)


def columns_taken_from_rows(patch):
    take = Shards.slice

    def mistaken(self, whole, how):
        square = whole.ndim == 2 and whole.shape[0] == whole.shape[1] and how.axis == 1
        return take(self, whole.T if square else whole, how)

    patch(Shards, "slice", mistaken)


@pytest.mark.parametrize("mistake", [activation_before_the_sum, columns_taken_from_rows])
def test_a_mistake_in_an_mlp_is_seen(mistake, monkeypatch):
    mistake(monkeypatch.setattr)
    assert mlp_difference(2, HIDDEN[0]) > 1e-6


# -- the strategy -----------------------------------------------------------------------------


def test_state_goes_from_one_number_of_ranks_to_another_and_back_to_the_bit():
    whole = tensor.start()

    def work(group, sequence):
        model = tensor.gpt(kit=TensorKit(group, sequence))
        strategy = TensorParallel(model, group, adamw)
        state = {f"{n}/{s}": a * (2 + len(s)) for n, a in whole.items() for s in ("m", "v")}
        state["step"] = np.array(3)
        strategy.load_state_dict(state)
        with strategy.whole() as one:
            one.load_state_dict(whole)
            return one.state_dict(), strategy.state_dict(), state

    for p, sequence in ((2, False), (3, True), (8, False)):
        for weights, state, wanted in minipar.run(work, p, args=(sequence,)):
            assert all((weights[n] == whole[n]).all() for n in whole)
            assert state.keys() == wanted.keys()
            assert all((state[n] == wanted[n]).all() for n in wanted)


def test_shards_are_slices_of_what_one_rank_draws():
    def work(group):
        strategy = TensorParallel(tensor.gpt(kit=TensorKit(group)), group, adamw)
        with strategy.whole() as whole:
            return whole.state_dict()

    one = tensor.gpt().state_dict()
    for state in minipar.run(work, 3):
        assert all((state[name] == one[name]).all() for name in one)


def test_a_state_of_another_size_is_refused():
    def work(group):
        strategy = TensorParallel(tensor.gpt(kit=TensorKit(group)), group, adamw)
        other = tensor.start()
        other["blocks.0.mlp.up.weight"] = np.zeros((24, 48))
        with strategy.whole() as whole:
            whole.load_state_dict(other)

    with pytest.raises(ShapeMismatch, match=r"up.weight is float64\[24, 48\].*\[24, 96\] in all"):
        minipar.run(work, 2)


def data_and_tensor(group, data, sequence=False):
    """2 x 2 ranks; also what is replicated, as this rank has it."""
    mesh = Mesh(group, dp=2, tp=2)
    dp, over = mesh.dp, mesh.group("dp", "tp") if data is not DataParallel else mesh.tp
    model = tensor.gpt(kit=TensorKit(mesh.tp, sequence))
    if group.rank == 1:
        model.norm.weight.data += 1  # rank 0's count
    strategy = TensorParallel(model, mesh.tp, adamw, lambda m, make: data(m, dp, make), over)
    rows = range(dp.rank * 2, dp.rank * 2 + 2)
    for step in range(FEW):
        ids, _ = tensor.batch(step)
        mine = ids[rows.start : rows.stop]
        strategy.zero_grad()
        strategy.announce(2)
        for row in (0, 1):
            with strategy.no_sync() if row == 0 else nullcontext():
                x = mine[row : row + 1]
                logits = model(x, Draw(0, step, rows[row : row + 1]))
                (model.output.loss(logits, x) * 0.5).backward()
        strategy.sync_gradients(2)
        norm = strategy.clip(0.2)
        strategy.step()
    with strategy.whole() as whole:
        alike = {
            name: x.data.copy()
            for name, x in model.named_parameters()
            if isinstance(strategy.table[name], Replicated)
        }
        return {**whole.state_dict(), **strategy.state_dict(), "norm": np.array(norm)}, alike


def small_buckets(model, group, make):
    return Zero2(model, group, make, bucket_bytes=2000)


INSIDE = (DataParallel, Zero1, small_buckets, Zero3)


@cache
def data_and_tensor_alone():
    model = tensor.gpt()
    optimizer = adamw(model.named_parameters())
    for step in range(FEW):
        ids, _ = tensor.batch(step)
        model.zero_grad()
        cross_entropy(model(ids, Draw(0, step, range(4))), ids).backward()
        norm = clip_grad_norm(model.parameters(), 0.2)
        optimizer.step()
    return {**model.state_dict(), **optimizer.state_dict(), "norm": np.array(norm)}


def furthest(ranks):
    """The largest difference from one rank, in any mix of data and tensor parallel."""
    one = data_and_tensor_alone()
    assert all(state.keys() == one.keys() for state, _ in ranks)
    return max(np.abs(state[name] - one[name]).max() for state, _ in ranks for name in one)


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("data", INSIDE)
def test_data_parallel_comes_inside(data, sequence):
    ranks = minipar.run(data_and_tensor, 4, args=(data, sequence))
    assert furthest(ranks) < 1e-10
    for _, alike in ranks:  # to the bit, though each rank made the step by itself
        assert all((array == ranks[0][1][name]).all() for name, array in alike.items())


def norm_of_the_ranks_that_share_layers(patch):
    """Without the slices that other replicas have."""
    clip = tensor_strategy.clip_sharded_norm
    patch(tensor_strategy, "clip_sharded_norm", lambda *args: clip(*args[:4]))


def norm_with_replicated_slices_twice(patch):
    def clip(named, table, group, max_norm, over):
        return clip_sharded(named, dict.fromkeys(table, Sharded(0, 1)), group, max_norm, over)

    clip_sharded = tensor_strategy.clip_sharded_norm
    patch(tensor_strategy, "clip_sharded_norm", clip)


def partial_slices_not_summed(patch):
    patch(tensor_strategy, "sum_gradients", lambda named, table, group: None)


@pytest.mark.parametrize(
    "mistake",
    [
        norm_of_the_ranks_that_share_layers,
        norm_with_replicated_slices_twice,
        partial_slices_not_summed,
    ],
)
def test_a_mistake_with_zero_inside_is_seen(mistake, monkeypatch):
    mistake(monkeypatch.setattr)
    assert furthest(minipar.run(data_and_tensor, 4, args=(Zero1, True))) > 1e-6


def test_zero_inside_must_be_told_who_has_all_of_the_gradient():
    def work(group):
        inside = group.split(group.rank)
        model = tensor.gpt(kit=TensorKit(group))
        TensorParallel(model, group, adamw, lambda m, make: Zero1(m, inside, make))

    with pytest.raises(UsageError, match="with ZeRO inside"):
        minipar.run(work, 2)


def test_ranks_must_build_the_same_model():
    def work(group):
        model = GPT(Init(0), 17, 8 + group.rank, 1, 24, 2, kit=TensorKit(group))
        TensorParallel(model, group, adamw)

    with pytest.raises(ReplicasDiffer, match=r"position\.weight"):
        minipar.run(work, 2)


def test_a_rank_of_two_holds_about_half():
    """Weights, gradients and state of the GPT of the goals (d 256, 4 layers, AdamW)."""
    sizes = {"vocab": 256, "block": 128, "layers": 4, "d": 256, "heads": 8}

    def work(group, kit):
        model = GPT(Init(0), **sizes, kit=kit(group))
        strategy = TensorParallel(model, group, AdamW)
        for x in model.parameters():
            x.grad = np.zeros_like(x.data)
        return held_bytes(model, strategy)

    (one,) = minipar.run(work, 1, args=(TensorKit,))
    assert max(minipar.run(work, 2, args=(TensorKit,))) < 0.55 * one
