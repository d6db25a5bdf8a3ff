import numpy as np
import pytest

from minipar.errors import UsageError
from minipar.nn import SelfAttention
from minipar.random import Draw, Init
from minipar.tensor import Tensor


@pytest.mark.parametrize("causal", [True, False])
def test_heads_attend_as_the_paper_says(causal):
    b, t, d, h = 2, 5, 12, 3
    layer = SelfAttention(Init(0, np.float64) / "a", d, h, causal=causal)
    for x in layer.parameters():
        x.data[...] = np.random.default_rng(x.data.size).normal(size=x.shape)
    x = np.random.default_rng(0).normal(size=(b, t, d))
    q, k, v = np.split(x @ layer.qkv.weight.data + layer.qkv.bias.data, 3, axis=-1)
    mixed = np.zeros((b, t, d))
    for n in range(h):  # head by head, query by query
        part = slice(n * d // h, (n + 1) * d // h)
        for i in range(b):
            for j in range(t):
                seen = j + 1 if causal else t
                e = np.exp(k[i, :seen, part] @ q[i, j, part] / np.sqrt(d / h))
                mixed[i, j, part] = e @ v[i, :seen, part] / e.sum()
    expected = mixed @ layer.out.weight.data + layer.out.bias.data
    np.testing.assert_allclose(layer(Tensor(x)).data, expected, rtol=1e-10)


def test_names_and_scaled_output():
    layer = SelfAttention(Init() / "a", 8, 2, out_std=0.001)
    names = [n for n, _ in layer.named_parameters()]
    assert names == ["qkv.weight", "qkv.bias", "out.weight", "out.bias"]
    assert layer.out.weight.data.std() < 0.002 < layer.qkv.weight.data.std()


def test_dropout_falls_on_the_output():
    layer = SelfAttention(Init() / "a", 8, 2, dropout=0.5)
    x = Tensor(np.ones((2, 3, 8), np.float32))
    dropped = layer(x, Draw(0, 0, range(2))).data
    keep = Draw(0, 0, range(2)).keep("a.dropout", (2, 3, 8), 0.5)
    np.testing.assert_allclose(dropped, np.where(keep, 2 * layer(x).data, 0), rtol=1e-6)


def test_heads_must_divide_the_features():
    with pytest.raises(UsageError, match=r"10 features .* 3 equal heads"):
        SelfAttention(Init(), 10, 3)
