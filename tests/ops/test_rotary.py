import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.ops import rotary
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)
X = rng.normal(size=(2, 5, 3, 8))


@pytest.mark.parametrize("base", [10000.0, 10, 500_000])
@pytest.mark.parametrize("positions", [np.arange(5), np.array([7, 0, 3, 3, 2**20]),
                                       np.array([[0, 1, 2, 3, 4], [4, 9, 1, 0, 0]])])  # fmt: skip
def test_each_pair_is_a_complex_number_that_turns(base, positions):
    z = rotary(Tensor(X), Tensor(positions), base).data
    turned = np.empty((2, 5, 3, 4), complex)
    for b, t, n in np.ndindex(2, 5, 4):
        at = positions[t] if positions.ndim == 1 else positions[b, t]
        pair = X[b, t, :, n] + 1j * X[b, t, :, n + 4]
        turned[b, t, :, n] = pair * np.exp(1j * at * base ** (-2 * n / 8))
    np.testing.assert_allclose(z, np.concatenate([turned.real, turned.imag], -1), atol=1e-9)
    gradcheck(lambda x: rotary(x, positions, base), X)


def test_products_depend_on_the_distance_only():
    q, k = rng.normal(size=(2, 1, 1, 1, 8))
    products = [
        (rotary(Tensor(q), [n + 3]).data * rotary(Tensor(k), [n]).data).sum() for n in (0, 5, 100)
    ]
    np.testing.assert_allclose(products, products[0], rtol=1e-10)


def test_float32_is_turned_by_exact_angles():
    x = X.astype(np.float32)
    z = rotary(Tensor(x), np.arange(5) + 100_000)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z.data, rotary(Tensor(X), np.arange(5) + 100_000).data, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "positions"), [((2, 5, 3, 7), 5), ((5, 3, 8), 3), ((2, 5, 3, 8), 4)]
)
def test_shapes_that_do_not_fit_are_named(shape, positions):
    with pytest.raises(ShapeMismatch, match=r"rotary: x is .*even number of channels"):
        rotary(Tensor(np.ones(shape)), np.arange(positions))
