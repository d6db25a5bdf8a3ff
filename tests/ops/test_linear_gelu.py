import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.ops import gelu, linear_gelu
from minipar.ops.linear_gelu import linear_gelu_definition
from minipar.tensor import Tensor, no_grad
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lead", [(0,), (1,), (3, 201)])  # several blocks, the last one not full
def test_it_is_its_definition(dtype, lead):
    arrays = [rng.normal(size=s).astype(dtype) for s in [(*lead, 5), (5, 211), (211,)]]
    fast, slow = ([Tensor(a, requires_grad=True) for a in arrays] for _ in range(2))
    z, expected = linear_gelu(*fast), linear_gelu_definition(*slow)
    assert z.dtype == dtype
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(z.data, expected.data, **close)
    dz = rng.normal(size=z.shape).astype(dtype)
    z.backward(dz)
    expected.backward(dz)
    for a, b in zip(fast, slow):
        np.testing.assert_allclose(a.grad, b.grad, **close)


def test_it_works_without_a_bias():
    x, w = rng.normal(size=(3, 4)), rng.normal(size=(4, 5))
    np.testing.assert_allclose(
        linear_gelu(Tensor(x), Tensor(w)).data, gelu(Tensor(x @ w)).data, rtol=1e-12
    )
    gradcheck(linear_gelu, x, w)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False)])
def test_what_is_not_wanted_is_not_computed(wanted):
    x, w, b = (Tensor(rng.normal(size=s), w) for s, w in zip([(3, 4), (4, 5), (5,)], wanted))
    z = linear_gelu(x, w, b)
    got = z._node.vjp(np.ones((3, 5)), wanted)
    assert [g is not None for g in got] == list(wanted)
    with no_grad():
        assert (linear_gelu(x, w, b).data == z.data).all()


def test_shapes_that_do_not_fit_are_named():
    x, w, b = Tensor(np.ones((3, 4))), Tensor(np.ones((4, 5))), Tensor(np.ones(4))
    with pytest.raises(ShapeMismatch, match=r"linear: b is float64\[4\], w is float64\[4, 5\]"):
        linear_gelu(x, w, b)
