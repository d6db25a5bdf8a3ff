"""What a graph keeps, held against what Python's own tracer sees, and against the formula."""

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.config import Config
from minipar.models import GPT
from minipar.ops import cross_entropy
from minipar.parallel.activations import Kept, kept_by, kept_by_parts, of_a_row
from minipar.parallel.passes import Part, as_input, as_numbers
from minipar.parallel.tensor_layers import TensorKit
from minipar.random import Draw, Init
from minipar.recipes import build_model, find
from minipar.tensor import Tensor


def part_of(c, data, rows):
    x, y = data.batch(np.arange(rows))
    return Part(as_input(x, c.dtype), as_numbers(y, c.dtype), Draw(0, 0, range(rows)))


@pytest.mark.parametrize("model", ["gpt", "vit", "mlp", "resnet"])
def test_a_row_times_the_rows_is_what_a_batch_keeps(model):
    """Within 4 %: ops also make small arrays that do not depend on the rows."""
    c = replace(Config(model=model), **find(model).defaults)
    c = replace(c, layers=2, d=64, heads=2, block=32, dropout=0.1)
    task = find(model).task
    data = task.load(c)[0]
    net = build_model(c, data)
    (one,) = kept_by_parts([[net]], part_of(c, data, 1), task.loss)
    batch = part_of(c, data, 8)
    task.loss(net(batch.x, batch.draw), batch.y)  # what ops make once is there
    gc.collect()
    tracemalloc.start()
    loss = task.loss(net(batch.x, batch.draw), batch.y)
    traced = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert loss.requires_grad
    assert 8 * one.inside == pytest.approx(traced, rel=0.04)


@pytest.mark.parametrize(("t", "d", "h", "s"), [(16, 32, 2, 16), (48, 24, 4, 48), (256, 8, 2, 160)])
def test_a_block_keeps_the_numbers_of_the_formula(t, d, h, s):
    """Beside them 1/std of two norms, and the sums of the scores.

    Up to 64 positions are one tile, and all keys are kept; of more, (t + 64) / 2.
    """
    net = GPT(Init(0), 16, t, 1, d, h)
    (block,) = net.blocks
    x = Tensor(np.random.default_rng(0).normal(size=(1, t, d)).astype(np.float32), True)
    kept = kept_by(block(x, Draw(0, 0, range(1))), block.parameters())
    assert kept == 4 * (cost.block_numbers(1, t, d, h, s) + (2 + h) * t)
    assert cost.sequence_block_numbers(1, t, d, h, s) == cost.block_numbers(1, t, d, h, s)


def test_parts_share_out_what_the_whole_keeps():
    net = GPT(Init(0), 16, 8, 2, 16, 2)
    ids = np.arange(8)[None] % 16
    micro = Part(ids, ids + 0, Draw(0, 0, range(1)))
    pieces = net.pieces()
    (whole,) = kept_by_parts([pieces], micro, cross_entropy)
    parts = kept_by_parts([pieces[:2], pieces[2:]], micro, cross_entropy)
    assert parts[0].entering == 0 and parts[1].entering == 8 * 16 * 4
    assert sum(part.inside for part in parts) == whole.inside
    assert max(part.largest for part in parts) == whole.largest


def kept_by_a_block(group, sequence, t, d, h):
    net = GPT(Init(0), 16, t, 1, d, h, kit=TensorKit(group, sequence))
    rows = t // group.size if sequence else t
    x = Tensor(np.ones((1, rows, d), np.float32), requires_grad=True)
    return kept_by(net.blocks[0](x, Draw(0, 0, range(1))), net.blocks[0].parameters())


@pytest.mark.parametrize("sequence", [False, True])
def test_shards_keep_their_part_of_a_block(sequence):
    p, t, d, h = 2, 32, 24, 4
    formula = cost.sequence_block_numbers if sequence else cost.block_numbers
    numbers = formula(p, t, d, h, t) + h // p * t + 2 * (t // p if sequence else t)
    for kept in minipar.run(kept_by_a_block, p, args=(sequence, t, d, h)):
        assert kept == 4 * numbers


def test_what_does_not_depend_on_the_rows_counts_once():
    one, two = [Kept(8, 130, 50)], [Kept(16, 160, 50)]
    assert of_a_row(one, two) == [Kept(8, 30, 50, 100)]
