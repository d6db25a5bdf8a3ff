import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.ops import batch_norm
from minipar.ops.batch_norm import EPS, batch_norm_definition, normalize
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)


def fast(x, gain, bias):
    return batch_norm(x, gain, bias)[0]


@pytest.mark.parametrize("f", [fast, batch_norm_definition])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4, 2), (6, 1), (1, 2, 2, 3)])
def test_vjps(f, shape):
    c = shape[-1]
    gradcheck(f, rng.normal(size=shape), rng.normal(size=c), rng.normal(size=c))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(2, 1), (33, 7, 7, 16), (64, 32, 3), (300, 600), (8, 16, 16, 64)]
)
def test_in_blocks_it_is_its_definition(dtype, shape):
    x, dz = (rng.normal(size=shape).astype(dtype) * 3 + 1 for _ in range(2))
    gain, bias = (rng.normal(size=shape[-1]).astype(dtype) for _ in range(2))
    ours = [Tensor(a, requires_grad=True) for a in (x, gain, bias)]
    theirs = [Tensor(a, requires_grad=True) for a in (x, gain, bias)]
    z, expected = fast(*ours), batch_norm_definition(*theirs)
    close = {"rtol": 2e-3, "atol": 2e-3} if dtype == np.float32 else {"rtol": 1e-8, "atol": 1e-9}
    assert z.dtype == dtype
    np.testing.assert_allclose(z.data, expected.data, **close)
    z.backward(dz)
    expected.backward(dz)
    for a, b in zip(ours, theirs):
        assert a.grad.dtype == dtype
        np.testing.assert_allclose(a.grad, b.grad, **close)


def test_it_standardizes_each_channel_and_tells_its_moments():
    x = rng.normal(size=(40, 3, 2)) * 9 + 3
    z, (count, mean, variance) = batch_norm(Tensor(x), Tensor(np.ones(2)), Tensor(np.zeros(2)))
    np.testing.assert_allclose(z.data.mean((0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(z.data.var((0, 1)), 1, rtol=1e-5)
    assert count == 120
    np.testing.assert_allclose(mean, x.mean((0, 1)))
    np.testing.assert_allclose(variance, x.var((0, 1)))


def test_a_mean_that_is_large_beside_the_spread_costs_no_digits():
    x = (1e4 + rng.normal(size=(5000, 8))).astype(np.float32)
    _, (_, _, variance) = batch_norm(Tensor(x), *(Tensor(np.ones(8, np.float32)),) * 2)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(0), rtol=1e-3)


def test_only_dx_asks_the_other_ranks_in_backward():
    calls = []

    def total(sums):
        calls.append(len(sums))
        return sums

    tensors = [Tensor(a, requires_grad=True) for a in (np.ones((4, 3)), np.ones(3), np.ones(3))]
    z, _ = batch_norm(*tensors, total=total)
    z._node.vjp(z.data, (False, True, True))
    assert calls == [7]
    z._node.vjp(z.data, (True, False, False))
    assert calls == [7, 6]


def test_normalize_by_given_moments():
    x, (gain, bias, mean) = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=(3, 4))
    variance = rng.uniform(1, 2, 4)
    z = normalize(Tensor(x), Tensor(gain), Tensor(bias), mean, variance)
    expected = (x - mean) / np.sqrt(variance + EPS) * gain + bias
    np.testing.assert_allclose(z.data, expected, rtol=1e-12)
    gradcheck(lambda x, g, b: normalize(x, g, b, mean, variance), x, gain, bias)


def test_what_does_not_fit_is_said():
    ones = Tensor(np.ones(3))
    with pytest.raises(ShapeMismatch, match=r"batch_norm: x is float64\[2, 4\], gain float64\[3\]"):
        batch_norm(Tensor(np.ones((2, 4))), ones, ones)
    with pytest.raises(ShapeMismatch, match="another axis for the rows"):
        batch_norm(ones, ones, ones)
    with pytest.raises(ShapeMismatch, match="no rows have no mean"):
        batch_norm(Tensor(np.ones((0, 3))), ones, ones)


def test_half_precision_is_summed_in_single():
    x = (100 + rng.normal(size=(4000, 3))).astype(np.float16)  # their sum is beyond float16
    z, (_, mean, variance) = batch_norm(Tensor(x), *(Tensor(np.ones(3, np.float16)),) * 2)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-4)
    np.testing.assert_allclose(variance, exact.var(0), rtol=1e-3)
    assert z.dtype == np.float16 and np.isfinite(z.data).all()
