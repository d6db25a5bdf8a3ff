import numpy as np
import pytest

from minipar import windows
from minipar.errors import ShapeMismatch, UsageError
from minipar.ops import avg_pool2d, max_pool2d
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)

CASES = [  # x, kernel, stride, padding
    ((2, 4, 6, 3), 2, None, 0),
    ((2, 5, 5, 2), 3, 2, 1),
    ((2, 5, 5, 2), 3, 1, 1),  # windows overlap
    ((2, 5, 7, 2), (2, 3), (3, 1), (1, 0)),
    ((1, 3, 3, 1), 1, 1, 0),
    ((0, 4, 4, 2), 2, None, 0),
]


def in_loops(x, kernel, stride, padding, fill, reduce):
    stride = kernel if stride is None else stride
    (k, l), (down, across), (p, q) = [
        n if isinstance(n, tuple) else (n, n) for n in (kernel, stride, padding)
    ]
    padded = np.pad(x, ((0, 0), (p, p), (q, q), (0, 0)), constant_values=fill)
    rows = range(0, padded.shape[1] - k + 1, down)
    cols = range(0, padded.shape[2] - l + 1, across)
    z = np.zeros((len(x), len(rows), len(cols), x.shape[3]))
    for y, top in enumerate(rows):
        for n, left in enumerate(cols):
            z[:, y, n] = reduce(padded[:, top : top + k, left : left + l], axis=(1, 2))
    return z


@pytest.mark.parametrize("part_bytes", [1, 1000, 1 << 21])
@pytest.mark.parametrize("c", CASES)
def test_forward_and_vjps(monkeypatch, part_bytes, c):
    monkeypatch.setattr(windows, "PART_BYTES", part_bytes)
    x, how = rng.permutation(np.prod(c[0])).reshape(c[0]).astype(float), c[1:]  # no two are equal
    largest, mean = max_pool2d(Tensor(x), *how), avg_pool2d(Tensor(x), *how)
    assert (largest.data == in_loops(x, *how, -np.inf, np.max)).all()
    np.testing.assert_allclose(mean.data, in_loops(x, *how, 0, np.mean))
    gradcheck(lambda x: max_pool2d(x, *how), x)
    gradcheck(lambda x: avg_pool2d(x, *how), x / 100)


def test_among_equals_the_first_wins():
    x = Tensor(np.zeros((1, 4, 4, 1)), requires_grad=True)
    max_pool2d(x, 2).backward(np.arange(1.0, 5).reshape(1, 2, 2, 1))
    expected = [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    assert (x.grad[0, :, :, 0] == expected).all()


def test_padding_never_wins():
    assert (max_pool2d(Tensor(np.full((1, 4, 4, 1), -5.0)), 3, 2, 1).data == -5).all()


def test_more_places_than_a_byte_counts():
    x = np.zeros((1, 17, 17, 1))
    x[0, 16, 16] = 1
    tensor = Tensor(x, requires_grad=True)
    max_pool2d(tensor, 17).sum().backward()
    assert (tensor.grad == x).all()


def test_float32_stays():
    x = Tensor(np.ones((1, 4, 4, 1), np.float32), requires_grad=True)
    for op in (max_pool2d, avg_pool2d):
        z = op(x, 2)
        z.sum().backward()
        assert z.dtype == x.grad.dtype == np.float32


def test_what_cannot_be_is_said():
    with pytest.raises(ShapeMismatch, match=r"max_pool2d: x is float64\[1, 2, 2, 1\], too small"):
        max_pool2d(Tensor(np.ones((1, 2, 2, 1))), 3)
    with pytest.raises(UsageError, match="nothing but padding"):
        avg_pool2d(Tensor(np.ones((1, 4, 4, 1))), 2, 1, 2)
