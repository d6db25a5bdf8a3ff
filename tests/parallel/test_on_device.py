"""Replicas, whole and sharded, on the stand-in for CuPy equal those on NumPy; ranks are threads."""

from functools import partial

import numpy as np
import pytest

import minipar
from minipar.array import to_device, to_numpy
from minipar.models import MLP
from minipar.ops import cross_entropy
from minipar.optim import AdamW
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.random import Draw, Init

TOKENS = np.arange(48).reshape(6, 8) * 7 % 11
SMALL = {"bucket_bytes": 500}
FORMS = [
    DataParallel,
    partial(BucketedDataParallel, **SMALL),
    partial(OverlappedDataParallel, **SMALL),
    Zero1,
    partial(Zero2, **SMALL),
    Zero3,
]


def train(group, form, xp):
    """The weights after three steps, on uneven rows."""
    model = MLP(Init(0, np.float64, xp=xp), 11, context=3, d=4, hidden=(8, 8))
    parallel = form(model, group, lambda named: AdamW(named, lr=0.1))
    rows = [range(4), range(4, 6)][group.rank] if group.size == 2 else range(6)
    x, y = to_device((TOKENS[rows], np.roll(TOKENS, -1)[rows]), xp)
    for step in range(3):
        parallel.zero_grad()
        parallel.announce(len(rows))
        cross_entropy(model(x, Draw(0, step, rows)), y).backward()
        parallel.sync_gradients(len(rows))
        parallel.clip(0.1)
        parallel.step()
    with parallel.whole():
        assert all(x.grad is None or type(x.grad) is type(x.data) for x in model.parameters())
        return {name: to_numpy(array) for name, array in model.state_dict().items()}


@pytest.mark.parametrize("form", FORMS)
def test_replicas_on_a_device_equal_one_rank_in_host_memory(form, cupy):
    one = minipar.run(train, 1, args=(form, np))[0]
    for state in minipar.run(train, 2, args=(form, cupy)):
        assert all(np.abs(state[name] - one[name]).max() < 1e-12 for name in one)
