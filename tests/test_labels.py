"""Inside checks() a shard or a partial sum that is used as the whole is an error with names."""

from contextlib import nullcontext

import numpy as np
import pytest

import minipar
from minipar import Init, Tensor
from minipar.errors import LabelMismatch
from minipar.labels import PARTIAL, REPLICATED, SHARDED, label, labels
from minipar.models import GPT, MLP, ViT
from minipar.nn import LayerNorm
from minipar.ops import concat, cross_entropy, gelu, layer_norm, linear
from minipar.optim import SGD
from minipar.parallel.tensor_layers import TensorKit
from minipar.parallel.tensor_strategy import TensorParallel
from minipar.random import Draw
from minipar.testing import tensor

X = np.random.default_rng(0).normal(size=(2, 4, 8))
INIT = Init(0, np.float64)


class Parts:
    """What the mistakes are made of: square layers, so that all shapes fit."""

    def __init__(self, group, sequence=False):
        kit = TensorKit(group, sequence)
        self.group, self.shards, self.output = group, kit.shards, kit.output(8)
        self.up, self.down = kit.column(INIT / "up", 8, 16), kit.row(INIT / "down", 16, 8)
        self.narrow = kit.column(INIT / "narrow", 8, 8)
        self.x = Tensor(X, requires_grad=True)
        self.ids = np.zeros((2, 4), int)

    def partial(self):
        return label(linear(self.up(self.x), self.down.weight), PARTIAL, "down", self.group)


def activation_of_a_partial_sum(it):
    gelu(it.partial())


def bias_added_to_a_partial_sum(it):
    it.partial() + it.down.bias


def partial_sum_in_the_residual(it):
    (it.down(it.up(it.x)) + it.x) + it.partial().reshape(2, 4, 8) * 2


def summed_twice(it):
    it.shards.leave(it.down(it.up(it.x)), "down")


def shard_into_a_column(it):
    it.narrow(concat([it.narrow(it.x)] * 2, axis=-1))  # of the size that it should have


def whole_into_a_row(it):
    it.down(label(Tensor(X, requires_grad=True) * 1, REPLICATED, "norm", it.group))


def norm_of_a_shard(it):
    shard = it.up(it.x)
    norm = LayerNorm(INIT, shard.shape[-1])
    layer_norm(shard, norm.weight, norm.bias)


def plain_loss_of_a_shard(it):
    cross_entropy(it.up(it.x), it.ids)


def loss_of_shards_of_whole_logits(it):
    it.output.loss(it.down(it.up(it.x)), it.ids)


MISTAKES = {
    activation_of_a_partial_sum: r"rank 1/2: \w+ at .*test_labels.py:\d+ takes a value that is only"
    r" a partial sum, made by layer down; the result would be float64\[2, 4, 8\]",
    bias_added_to_a_partial_sum: "rank 1/2: add .* partial sum, made by layer down",
    partial_sum_in_the_residual: "rank 1/2: add .* partial sum",
    summed_twice: r"rank 1/2, layer down: g, .* takes a partial sum, but float64\[2, 4, 8\] \(made"
    " by add .* what every rank has in full, made by layer down",
    shard_into_a_column: "rank 1/2, layer narrow: f, .* every rank has in full, but .* is a shard",
    whole_into_a_row: "layer down: a row layer takes a shard along axis -1, but .* layer norm",
    norm_of_a_shard: "layer_norm .* only a shard along axis -1, made by layer up.*gather them",
    plain_loss_of_a_shard: "cross_entropy .* only a shard",
    loss_of_shards_of_whole_logits: "the loss of shards takes a shard .* axis -1, but .* in full",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake):
    def work(group):
        it = Parts(group)
        with minipar.checks() if group.rank else nullcontext():  # so it is rank 1 that is named
            mistake(it)

    with pytest.raises(LabelMismatch, match=MISTAKES[mistake]):
        minipar.run(work, 2)


def test_without_checks_there_is_no_label():
    def work(group):
        it = Parts(group)
        assert labels() is None
        for mistake in (activation_of_a_partial_sum, norm_of_a_shard, summed_twice):
            mistake(it)

    minipar.run(work, 2)


def test_under_sequence_parallel_a_column_takes_positions():
    def work(group):
        it = Parts(group, sequence=True)
        with minipar.checks():
            whole = label(Tensor(X, requires_grad=True) * 1, REPLICATED, "norm", group)
            it.up(label(whole * 1, SHARDED, "norm", group, axis=1))
            it.up(whole)

    with pytest.raises(LabelMismatch, match=r"a shard along axis 1, but .* in full"):
        minipar.run(work, 2)


@pytest.mark.parametrize("sequence", [False, True])
def test_what_is_right_passes(sequence):
    def work(group):
        kit = TensorKit(group, sequence)
        gpt = tensor.gpt(kit=kit)
        vit = ViT(INIT, (8, 8, 1), 2, layers=1, d=8, heads=4, dropout=0.1, kit=kit)
        strategy = TensorParallel(gpt, group, lambda named: SGD(named, 0.1))
        ids, y = tensor.batch(0)
        with minipar.checks():
            gpt.output.loss(gpt(ids, Draw(0, 0, range(4))), y, ignore_index=-1).backward()
            strategy.sync_gradients()
            logits = vit(np.ones((2, 8, 8, 1)), Draw(0, 0, range(2)))
            cross_entropy(logits, np.array([1, 2])).backward()
            if not sequence:
                mlp = MLP(INIT, 10, 4, 6, (24, 24), 0.1, kit)
                mlp.output.loss(mlp(ids[:, :8] % 10), ids[:, :8] % 10).backward()

    minipar.run(work, 2)


def test_a_plain_model_has_no_labels():
    with minipar.checks():
        logits = GPT(INIT, 17, 8, 1, 8, 4)(np.zeros((1, 4), int))
        assert labels().get(logits) is None
