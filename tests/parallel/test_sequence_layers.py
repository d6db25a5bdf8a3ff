"""What lies between the layers, on the own positions: a slice of what one rank would have."""

import numpy as np
import pytest

import minipar
from minipar.nn import Dropout, LayerNorm, Linear, Positions
from minipar.parallel.sequence_layers import (
    SequenceDropout,
    SequenceEntry,
    SequenceNorm,
    SequencePositions,
)
from minipar.random import Draw, Init
from minipar.tensor import Tensor

B, T, D = 2, 12, 4
F64 = Init(0, np.float64)
X = np.random.default_rng(0).normal(size=(B, T, D))
DRAW = Draw(0, 3, range(5, 5 + B))
CASES = {
    "norm": (
        lambda: LayerNorm(F64 / "norm", D),
        lambda group: SequenceNorm(F64 / "norm", D),
    ),
    "positions": (
        lambda: Positions(F64 / "position", T, D, 1.0),
        lambda group: SequencePositions(F64 / "position", T, D, 1.0, group),
    ),
    "dropout": (
        lambda: Dropout(F64 / "dropout", 0.5),
        lambda group: SequenceDropout(F64 / "dropout", 0.5, group),
    ),
}


def called(layer, x):
    return layer(x, DRAW) if isinstance(layer, Dropout) else layer(x)


@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_own_positions_are_a_slice_and_the_gradients_add_up(name, p):
    plain, own = CASES[name]
    layer, x = plain(), Tensor(X, requires_grad=True)
    z = called(layer, x)
    z.backward(X + 1)

    def work(group):
        mine = np.array_split(np.arange(T), p)[group.rank]
        layer, x = own(group), Tensor(X[:, mine], requires_grad=True)
        found = called(layer, x)
        found.backward(X[:, mine] + 1)
        return found.data, x.grad, {n: w.grad for n, w in layer.named_parameters()}

    outputs, inputs, weights = zip(*minipar.run(work, p))
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), z.data, atol=1e-14)
    np.testing.assert_allclose(np.concatenate(inputs, axis=1), x.grad, atol=1e-14)
    for key, w in layer.named_parameters():
        np.testing.assert_allclose(sum(grads[key] for grads in weights), w.grad, atol=1e-13)


@pytest.mark.parametrize("p", [2, 3])
def test_the_entry_takes_the_whole_input_and_gives_the_own_positions(p):
    plain, x = Linear(F64 / "entry", D, 3, std=1.0), Tensor(X, requires_grad=True)
    z = plain(x)
    z.backward(np.ones((B, T, 3)))

    def work(group):
        layer, x = SequenceEntry(F64 / "entry", D, 3, 1.0, group), Tensor(X, requires_grad=True)
        found = layer(x)
        found.backward(np.ones(found.shape))
        return found.data, x.grad, layer.weight.grad

    outputs, inputs, weights = zip(*minipar.run(work, p))
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), z.data, atol=1e-14)
    for dx in inputs:
        np.testing.assert_allclose(dx, x.grad, atol=1e-14)
    np.testing.assert_allclose(sum(weights), plain.weight.grad, atol=1e-13)
