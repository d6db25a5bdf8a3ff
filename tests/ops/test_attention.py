import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.ops import attention, causal_attention, matmul, softmax, transpose
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)


def definition(qkv: Tensor) -> Tensor:
    """The three lines at the top of attention.py, in small ops."""
    t, c = qkv.shape[1], qkv.shape[4]
    q, k, v = (transpose(qkv[:, :, n], 0, 2, 1, 3) for n in range(3))  # [b, h, t, c]
    scores = matmul(q, transpose(k, 0, 1, 3, 2)) / c**0.5
    future = np.triu(np.full((t, t), -1e9), 1).astype(qkv.dtype)
    return transpose(matmul(softmax(scores + future), v), 0, 2, 1, 3)


@pytest.mark.parametrize("f", [causal_attention, definition])
@pytest.mark.parametrize("shape", [(1, 1, 3, 1, 1), (2, 5, 3, 2, 4), (1, 4, 3, 3, 2)])
def test_vjps(f, shape):
    gradcheck(f, rng.normal(size=shape))


@pytest.mark.parametrize("score_bytes", [1, 700, 1 << 19])  # one head, some heads, all at a time
@pytest.mark.parametrize("queries", [1, 5, 64])  # tiles of one query, uneven ones, a single tile
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_fused_op_is_its_definition(monkeypatch, score_bytes, queries, dtype):
    monkeypatch.setattr(attention, "SCORE_BYTES", score_bytes)
    monkeypatch.setattr(attention, "QUERIES", queries)
    x = rng.normal(size=(2, 12, 3, 5, 8)).astype(dtype)
    dz = rng.normal(size=(2, 12, 5, 8)).astype(dtype)
    fast, slow = Tensor(x, requires_grad=True), Tensor(x, requires_grad=True)
    a, b = causal_attention(fast), definition(slow)
    a.backward(dz)
    b.backward(dz)
    close = {"atol": 1e-5} if dtype == np.float32 else {"atol": 1e-12}
    assert a.dtype == dtype
    np.testing.assert_allclose(a.data, b.data, **close)
    np.testing.assert_allclose(fast.grad, slow.grad, **close)


def test_a_quarter_of_the_scores_of_two_tiles_is_never_made(monkeypatch):
    monkeypatch.setattr(attention, "QUERIES", 6)
    sizes, exp = [], np.exp
    monkeypatch.setattr(np, "exp", lambda e, out: sizes.append(e.size) or exp(e, out=out))
    causal_attention(Tensor(np.ones((2, 12, 3, 5, 8))))
    assert sum(sizes) == 0.75 * 2 * 5 * 12 * 12


def test_no_position_sees_a_later_one():
    x = rng.normal(size=(1, 6, 3, 2, 4))
    before = causal_attention(Tensor(x)).data
    x[:, 3:] = 99
    after = causal_attention(Tensor(x)).data
    assert (after[:, :3] == before[:, :3]).all() and (after[:, 3:] != before[:, 3:]).all()


def test_a_wrong_layout_is_named():
    with pytest.raises(ShapeMismatch, match=r"float64\[2, 5, 4\].*q, k and v"):
        causal_attention(Tensor(np.ones((2, 5, 4))))
