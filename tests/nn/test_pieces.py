"""A model is the chain of its pieces, and these name what it is made of."""

import numpy as np
import pytest

from minipar.models import GPT, MLP, ResNet, ViT
from minipar.nn import Dropout, Linear, Module, Piece, Sequential, chain
from minipar.ops import tanh
from minipar.random import Draw, Init
from minipar.tensor import Tensor

INIT = Init(0, np.float64)
MODELS = [
    (GPT(INIT, 16, 8, layers=2, d=8, heads=2, dropout=0.25), np.arange(6).reshape(2, 3), 4),
    (MLP(INIT, 16, 4, 3, hidden=(5, 6), dropout=0.25), np.arange(6).reshape(2, 3), 4),
    (ResNet(INIT, 3, layers=(1, 2), width=4), np.ones((2, 8, 8, 3)), 5),
    (ResNet(INIT, 3, layers=(1,), width=4, large=True), np.ones((2, 32, 32, 3)), 3),
    (ViT(INIT, (8, 8, 1), 4, layers=2, d=8, heads=2), np.ones((2, 8, 8, 1)), 4),
    (Sequential(Linear(INIT / 0, 3, 3), tanh, Dropout(INIT / 1, 0.5)), Tensor(np.ones((2, 3))), 3),
]


@pytest.mark.parametrize(("model", "x", "count"), MODELS)
def test_pieces_are_the_model(model, x, count):
    pieces, draw = model.pieces(), Draw(0, 3, range(2))
    assert len(pieces) == count
    for given in (None, draw):
        assert (chain(pieces, x, given).data == model(x, given).data).all()
    inside = {id(x) for piece in pieces for x in piece.parameters()}
    assert inside == {id(x) for x in model.parameters()}


def test_the_head_of_gpt_holds_the_table_that_its_embedding_holds():
    first, *_, last = MODELS[0][0].pieces()
    assert first.parameters()[0] is last.parameters()[-1]


def test_a_piece_holds_modules_tensors_and_lists_of_them():
    a, b, c = (Linear(INIT / n, 2, 2, bias=False) for n in range(3))
    piece = Piece(lambda x, draw: (x, draw), a, b.weight, [c])
    assert piece.parameters() == [a.weight, b.weight, c.weight]
    assert piece(1) == (1, None) and piece(1, 2) == (1, 2)
    assert list(piece.modules()) == [piece, a, c]


def test_parameters_of_a_sequential_are_numbered():
    model = Sequential(Linear(INIT / "a", 2, 2, bias=False), tanh, Linear(INIT / "b", 2, 2))
    names = [name for name, _ in model.named_parameters()]
    assert names == ["layers.0.weight", "layers.2.weight", "layers.2.bias"]


def test_a_layer_gets_the_draw_if_it_asks_for_one():
    class Asks(Module):
        def __call__(self, x, draw=None):
            return x, draw

    assert Sequential(lambda x: x + 1, Asks())(1, "draw") == (2, "draw")
