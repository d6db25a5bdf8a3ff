"""Tensor parallel layers on a GPU's arrays: on the stand-in for CuPy, by a group of one."""

import numpy as np
import pytest

from minipar.array import to_numpy
from minipar.models import GPT
from minipar.nn import GroupedSelfAttention
from minipar.parallel.sharding import clip_sharded_norm, sharding, sum_gradients, whole_state
from minipar.parallel.tensor_layers import TensorKit
from minipar.random import Draw, Init
from minipar.tensor import Tensor

IDS = np.random.default_rng(0).integers(0, 11, size=(2, 8))


class Alone:
    """A group of one rank, that has no transport."""

    rank, size = 0, 1

    def all_reduce(self, x, op="sum", out=None):
        return x.copy() if out is None else out

    def all_gather(self, x):
        return x.copy().reshape(1, *x.shape)

    def reduce_scatter(self, x):
        return x.copy()


def gradients(xp, sequence, group=None):
    group = group or Alone()
    model = GPT(Init(0, np.float64, xp=xp), 11, 8, 1, 8, 2, 0.2, TensorKit(group, sequence))
    targets = np.where(IDS == 3, -1, IDS)
    logits = model(IDS, Draw(0, 0, range(2)))
    model.output.loss(logits, targets, ignore_index=-1, label_smoothing=0.1).backward()
    named, table = list(model.named_parameters()), sharding(model)
    sum_gradients(named, table, group)
    norm = clip_sharded_norm(named, table, group, 0.1)
    whole = whole_state({name: x.grad for name, x in named}, table, group)
    logits = to_numpy(model.output.whole(logits).data)
    return {"norm": norm, "logits": logits, **{name: to_numpy(g) for name, g in whole.items()}}


@pytest.mark.parametrize("sequence", [False, True])
def test_a_gpt_has_the_same_gradients_there(cupy, sequence):
    here, there = gradients(np, sequence), gradients(cupy, sequence)
    assert here.keys() == there.keys()
    for name, wanted in here.items():
        np.testing.assert_allclose(there[name], wanted, rtol=1e-9, atol=1e-12, err_msg=name)


def test_grouped_heads_are_the_same_there(cupy):
    def found(xp):
        init = Init(0, np.float64, xp=xp)
        layer = GroupedSelfAttention(init, 8, 4, 1, kit=TensorKit(Alone()))
        x = Tensor(xp.ones((2, 3, 8)), requires_grad=True)
        layer(x).sum().backward()
        return to_numpy(x.grad)

    np.testing.assert_allclose(found(cupy), found(np), rtol=1e-9, atol=1e-12)
