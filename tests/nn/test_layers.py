import numpy as np

from minipar.nn import Dropout, Embedding, LayerNorm, Linear, RMSNorm
from minipar.random import Draw, Init
from minipar.tensor import Tensor

INIT = Init(0, np.float64) / "layer"
X = np.random.default_rng(0).normal(size=(4, 3, 6))


def names(layer):
    return {name: x.shape for name, x in layer.named_parameters()}


def test_linear():
    layer = Linear(INIT, 6, 5)
    layer.bias.data[...] = 3
    assert np.allclose(layer(Tensor(X)).data, X @ layer.weight.data + 3)
    assert names(layer) == {"weight": (6, 5), "bias": (5,)}
    assert names(Linear(INIT, 6, 5, bias=False)) == {"weight": (6, 5)}


def test_weights_come_from_seed_and_name():
    assert (Linear(INIT, 6, 5).weight.data == INIT.normal("weight", (6, 5), 0.02)).all()
    assert (Embedding(INIT, 6, 5, std=1.0).weight.data == INIT.normal("weight", (6, 5), 1.0)).all()


def test_embedding():
    layer = Embedding(INIT, 9, 2)
    ids = np.array([[1, 8], [0, 1]])
    assert (layer(ids).data == layer.weight.data[ids]).all()


def test_layer_norm_starts_as_plain_standardization():
    z = LayerNorm(INIT, 6)(Tensor(X)).data
    expected = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(z, expected, rtol=1e-10)


def test_rms_norm_starts_with_the_mean_square_1():
    z = RMSNorm(INIT, 6)(Tensor(X)).data
    np.testing.assert_allclose(z, X / np.sqrt((X * X).mean(-1, keepdims=True) + 1e-5), rtol=1e-10)
    assert names(RMSNorm(INIT, 6)) == {"weight": (6,)}


def test_dropout_drops_only_in_training():
    layer, x = Dropout(INIT, 0.5), Tensor(X)
    assert layer(x) is x
    assert Dropout(INIT, 0.0)(x, Draw(0, 0, range(4))) is x
    draw = Draw(0, 0, range(4))
    keep = draw.keep("layer", X.shape, 0.5)
    assert np.allclose(layer(x, draw).data, np.where(keep, X * 2, 0))
