import numpy as np
import pytest

from minipar.errors import UsageError
from minipar.nn import BatchNorm, Conv2d
from minipar.ops import conv2d
from minipar.random import Draw, Init
from minipar.tensor import Tensor

rng = np.random.default_rng(0)
INIT = Init(0, np.float64)


def test_conv2d_is_the_op_with_the_layers_weights():
    layer = Conv2d(INIT / "c", 4, 6, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), groups=2)
    assert layer.weight.shape == (3, 2, 2, 6) and layer.bias.shape == (6,)
    x = Tensor(rng.normal(size=(2, 7, 7, 4)))
    expected = conv2d(x, layer.weight, layer.bias, 2, (1, 0), (1, 2), 2)
    assert (layer(x).data == expected.data).all()
    assert Conv2d(INIT, 3, 4, bias=False).bias is None


def test_conv2d_keeps_the_size_of_a_signal_before_relu():
    std = Conv2d(INIT, 64, 64, 5).weight.data.std()
    assert abs(std / (2 / (25 * 64)) ** 0.5 - 1) < 0.02
    std = Conv2d(INIT, 64, 64, 5, groups=4).weight.data.std()
    assert abs(std / (2 / (25 * 16)) ** 0.5 - 1) < 0.02


def test_conv2d_of_uneven_groups():
    with pytest.raises(UsageError, match="4 and 6 channels cannot be cut into 4 groups"):
        Conv2d(INIT, 4, 6, groups=4)


def draw(step, rows=range(8)):
    return Draw(0, step, rows)


def test_batch_norm_trains_by_the_batch_and_evaluates_by_running_moments():
    layer = BatchNorm(INIT, 3)
    x = rng.normal(size=(8, 5, 3)) * 2 + 1
    z = layer(Tensor(x), draw(0)).data
    np.testing.assert_allclose(z.mean((0, 1)), 0, atol=1e-12)
    mean, var = 0.1 * x.mean((0, 1)), 0.9 + 0.1 * x.var((0, 1), ddof=1)
    np.testing.assert_allclose(layer.running_mean.data, mean)
    np.testing.assert_allclose(layer.running_var.data, var)
    z = layer(Tensor(x)).data
    np.testing.assert_allclose(z, (x - mean) / np.sqrt(var + 1e-5))
    np.testing.assert_allclose(layer.running_mean.data, mean)  # evaluation changes nothing


def test_a_batch_counts_once_but_each_micro_batch_counts():
    """Twice the same draw is what a checkpoint does, which computes forward again in backward."""
    layer, x = BatchNorm(INIT, 2), [rng.normal(size=(4, 2)) + n for n in range(3)]
    expected = np.zeros(2)
    calls = [(0, range(4)), (0, range(4, 8)), (0, range(4)), (0, range(4, 8)), (1, range(4))]
    for (step, rows), new in zip(calls, (True, True, False, False, True)):
        layer(Tensor(x[rows.start // 4 + step]), draw(step, rows))
        if new:
            expected = 0.9 * expected + 0.1 * x[rows.start // 4 + step].mean(0)
        np.testing.assert_allclose(layer.running_mean.data, expected)


def test_running_moments_are_saved_but_not_trained():
    layer = BatchNorm(Init(), 2)
    layer(Tensor(rng.normal(size=(4, 2)).astype(np.float32)), draw(0)).sum().backward()
    assert layer.running_var.grad is None and layer.running_var.dtype == np.float32
    other = BatchNorm(Init(), 2)
    other.load_state_dict(layer.state_dict())
    assert (other.running_mean.data == layer.running_mean.data).all()
    assert set(layer.state_dict()) == {"weight", "bias", "running_mean", "running_var"}


def test_one_row_has_no_spread():
    layer = BatchNorm(INIT, 2)
    z = layer(Tensor(np.ones((1, 2))), draw(0, range(1)))
    assert (z.data == 0).all() and np.isfinite(layer.running_var.data).all()


def test_the_first_gain():
    assert (BatchNorm(INIT, 2, gain=0.0).weight.data == 0).all()


def test_torch_agrees_on_running_moments():
    torch = pytest.importorskip("torch")
    ours, theirs = BatchNorm(INIT, 3), torch.nn.BatchNorm2d(3, dtype=torch.float64)
    for step in range(3):
        x = rng.normal(size=(2, 4, 5, 3))
        z = ours(Tensor(x), draw(step)).data
        expected = theirs(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        np.testing.assert_allclose(z, expected.detach(), atol=1e-12)
    np.testing.assert_allclose(ours.running_mean.data, theirs.running_mean)
    np.testing.assert_allclose(ours.running_var.data, theirs.running_var)
