import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.ops import layer_norm, log_softmax, rms_norm, softmax
from minipar.ops.normalize import layer_norm_definition, rms_norm_definition
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax(axis):
    x = rng.normal(size=(2, 3, 4))
    expected = np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(softmax(Tensor(x), axis).data, expected, rtol=1e-14)
    gradcheck(lambda x: softmax(x, axis), x)


def test_softmax_of_large_numbers_is_finite():
    assert np.allclose(softmax(Tensor([1000.0, 1000.0, -1000.0])).data, [0.5, 0.5, 0])


@pytest.mark.parametrize("f", [layer_norm, layer_norm_definition])
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_layer_norm_vjps(f, lead):
    gradcheck(f, rng.normal(size=(*lead, 5)), rng.normal(size=5), rng.normal(size=5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 5003])  # several blocks, the last one not full
def test_layer_norm_in_blocks_is_its_definition(dtype, rows):
    x, dz = (rng.normal(size=(rows, 64)).astype(dtype) * 3 + 1 for _ in range(2))
    gain, bias = (rng.normal(size=64).astype(dtype) for _ in range(2))
    fast = [Tensor(a, requires_grad=True) for a in (x, gain, bias)]
    slow = [Tensor(a, requires_grad=True) for a in (x, gain, bias)]
    z, expected = layer_norm(*fast), layer_norm_definition(*slow)
    close = {"rtol": 1e-3, "atol": 1e-3} if dtype == np.float32 else {"rtol": 1e-8, "atol": 1e-10}
    assert z.dtype == dtype
    np.testing.assert_allclose(z.data, expected.data, **close)
    z.backward(dz)
    expected.backward(dz)
    for a, b in zip(fast, slow):
        np.testing.assert_allclose(a.grad, b.grad, **close)


def test_layer_norm_standardizes_each_row():
    z = layer_norm(
        Tensor(rng.normal(size=(6, 50)) * 9 + 3), Tensor(np.ones(50)), Tensor(np.zeros(50))
    )
    np.testing.assert_allclose(z.data.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(z.data.var(-1), 1, rtol=1e-5)


def test_layer_norm_of_wrong_gain():
    with pytest.raises(ShapeMismatch, match=r"layer_norm: x is float64\[2, 3\], gain float64\[2\]"):
        layer_norm(Tensor(np.ones((2, 3))), Tensor(np.ones(2)), Tensor(np.ones(3)))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_log_softmax(axis):
    x = rng.normal(size=(2, 3, 4))
    expected = np.log(np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True))
    np.testing.assert_allclose(log_softmax(Tensor(x), axis).data, expected, rtol=1e-13)
    gradcheck(lambda x: log_softmax(x, axis), x)


def test_log_softmax_is_exact_where_softmax_is_zero():
    assert log_softmax(Tensor([0.0, -2000.0])).data.tolist() == [0, -2000]


@pytest.mark.parametrize("f", [rms_norm, rms_norm_definition])
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_rms_norm_vjps(f, lead):
    gradcheck(f, rng.normal(size=(*lead, 5)), rng.normal(size=5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 5003])  # several blocks, the last one not full
def test_rms_norm_in_blocks_is_its_definition(dtype, rows):
    x, dz = (rng.normal(size=(rows, 64)).astype(dtype) * 3 + 1 for _ in range(2))
    gain = rng.normal(size=64).astype(dtype)
    fast, slow = ([Tensor(a, requires_grad=True) for a in (x, gain)] for _ in range(2))
    z, expected = rms_norm(*fast), rms_norm_definition(*slow)
    close = {"rtol": 1e-3, "atol": 1e-3} if dtype == np.float32 else {"rtol": 1e-8, "atol": 1e-10}
    assert z.dtype == dtype
    np.testing.assert_allclose(z.data, expected.data, **close)
    z.backward(dz)
    expected.backward(dz)
    for a, b in zip(fast, slow):
        np.testing.assert_allclose(a.grad, b.grad, **close)


def test_rms_norm_gives_each_row_the_mean_square_1():
    z = rms_norm(Tensor(rng.normal(size=(6, 50)) * 9 + 3), Tensor(np.ones(50))).data
    np.testing.assert_allclose([row @ row / 50 for row in z], 1, rtol=1e-5)


def test_rms_norm_of_wrong_gain():
    with pytest.raises(ShapeMismatch, match=r"rms_norm: x is float64\[2, 3\], gain float64\[2\]"):
        rms_norm(Tensor(np.ones((2, 3))), Tensor(np.ones(2)))
