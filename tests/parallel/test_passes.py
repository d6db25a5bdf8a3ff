"""Forward and backward in parts give what they give at once."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from minipar.nn import Linear
from minipar.ops import cross_entropy
from minipar.parallel.passes import OneByOne, Part
from minipar.random import Draw, Init
from minipar.tensor import Tensor


def test_uneven_parts_add_up_and_only_the_last_one_may_send():
    dice = np.random.default_rng(0)
    x, y = dice.normal(size=(7, 3)), dice.integers(0, 2, 7)
    inside, seen = [], []

    @contextmanager
    def no_sync():
        inside.append(True)
        yield
        inside.pop()

    layer = Linear(Init(0, np.float64), 3, 2, std=1.0)

    def model(x, draw):
        seen.append((list(draw.rows), bool(inside)))
        return layer(x)

    passes = OneByOne(model, SimpleNamespace(no_sync=no_sync), cross_entropy)
    rows = [range(3), range(3, 4), range(4, 7)]
    parts = [
        Part(Tensor(x[r.start : r.stop]), y[r.start : r.stop], Draw(0, 0, r), len(r) / 7)
        for r in rows
    ]
    loss = passes.train(parts)
    found = layer.weight.grad.copy()
    assert seen == [([0, 1, 2], True), ([3], True), ([4, 5, 6], False)]

    layer.zero_grad()
    whole = cross_entropy(layer(Tensor(x)), y)
    whole.backward()
    assert loss == pytest.approx(whole.item(), rel=1e-14)
    np.testing.assert_allclose(found, layer.weight.grad, atol=1e-15)
