import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.ops import causal_attention, scaled_dot_product_attention, sdpa
from minipar.ops.sdpa import attention_definition
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)
SHAPES = [  # b, t, s, h, g, c
    (1, 1, 1, 1, 1, 1),
    (2, 5, 5, 2, 2, 3),
    (1, 4, 4, 6, 2, 2),
    (2, 3, 3, 4, 1, 2),
    (1, 1, 6, 4, 2, 2),
    (2, 2, 5, 4, 4, 3),
]


def draw(b, t, s, h, g, c, dtype=np.float64):
    shapes = (b, t, h, c), (b, s, g, c), (b, s, g, c)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def one_query_at_a_time(q, k, v, causal):
    (b, t, h, c), (s, g) = q.shape, k.shape[1:3]
    z = np.zeros_like(q)
    for item, n, head in np.ndindex(b, t, h):
        group = head // (h // g)
        seen = s - t + n + 1 if causal else s
        weights = np.exp(k[item, :seen, group] @ q[item, n, head] / np.sqrt(c))
        z[item, n, head] = weights @ v[item, :seen, group] / weights.sum()
    return z


@pytest.mark.parametrize("op", [attention_definition, scaled_dot_product_attention])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_query_mixes_the_values_of_its_group(op, shape, causal):
    q, k, v = draw(*shape)
    expected = one_query_at_a_time(q, k, v, causal)
    np.testing.assert_allclose(op(*map(Tensor, (q, k, v)), causal).data, expected, atol=1e-13)
    gradcheck(lambda *qkv: op(*qkv, causal), q, k, v)


@pytest.mark.parametrize("score_bytes", [1, 6000, 1 << 19])  # one group, some groups, all at a time
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_parts_make_the_definition(monkeypatch, score_bytes, causal, dtype):
    monkeypatch.setattr(sdpa, "SCORE_BYTES", score_bytes)
    arrays = draw(2, 7, 12, 10, 5, 8, dtype)
    fast, slow = ([Tensor(a, requires_grad=True) for a in arrays] for _ in range(2))
    a, b = scaled_dot_product_attention(*fast, causal), attention_definition(*slow, causal)
    dz = rng.normal(size=a.shape).astype(dtype)
    a.backward(dz)
    b.backward(dz)
    close = {"atol": 1e-5} if dtype == np.float32 else {"atol": 1e-12}
    assert a.dtype == dtype
    np.testing.assert_allclose(a.data, b.data, **close)
    for x, y in zip(fast, slow):
        np.testing.assert_allclose(x.grad, y.grad, **close)
    unrecorded = scaled_dot_product_attention(*map(Tensor, arrays), causal)
    assert (unrecorded.data == a.data).all()


def test_it_is_causal_attention_for_packed_heads():
    qkv = rng.normal(size=(2, 6, 3, 4, 5))
    q, k, v = (Tensor(qkv[:, :, n]) for n in range(3))  # views
    expected = causal_attention(Tensor(qkv)).data
    np.testing.assert_allclose(
        scaled_dot_product_attention(q, k, v, causal=True).data, expected, atol=1e-13
    )


def test_one_query_with_a_cache_is_the_last_row():
    q, k, v = map(Tensor, draw(2, 6, 6, 4, 2, 3))
    whole = scaled_dot_product_attention(q, k, v, causal=True).data
    for n in range(1, 7):
        last = scaled_dot_product_attention(q[:, n - 1 : n], k[:, :n], v[:, :n], causal=True)
        np.testing.assert_allclose(last.data[:, 0], whole[:, n - 1], atol=1e-13)


def test_large_scores_stay_finite():
    q, k, v = draw(1, 3, 3, 2, 2, 4)
    z = scaled_dot_product_attention(Tensor(q * 1e4), Tensor(k * 1e4), Tensor(v), causal=True)
    assert np.isfinite(z.data).all()


@pytest.mark.parametrize(
    ("q", "k", "v"),
    [
        ((2, 3, 4, 5), (2, 3, 3, 5), (2, 3, 3, 5)),  # 3 does not divide 4
        ((2, 3, 4, 5), (2, 3, 4, 5), (2, 4, 4, 5)),
        ((2, 3, 4, 5), (2, 3, 4, 6), (2, 3, 4, 6)),
        ((1, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5)),
        ((2, 3, 4, 5), (2, 0, 4, 5), (2, 0, 4, 5)),
        ((3, 4, 5), (3, 4, 5), (3, 4, 5)),
    ],
)
def test_shapes_that_do_not_fit_are_named(q, k, v):
    with pytest.raises(ShapeMismatch, match=r"k float64.*\[batch, position, head, channel\]"):
        scaled_dot_product_attention(*(Tensor(np.ones(shape)) for shape in (q, k, v)))


def test_more_queries_than_keys_cannot_be_causal():
    with pytest.raises(ShapeMismatch, match="4 queries stand at the end of 3 keys"):
        scaled_dot_product_attention(*map(Tensor, draw(1, 4, 3, 2, 2, 2)), causal=True)
