"""The kernel itself: -1 does not count, whatever lies in its row."""

import numpy as np
import pytest

from minipar import cuda
from tests.cuda.test_kernels import EVERYWHERE, close


def by_hand(x, targets, share, epsilon):
    """The loss, and its gradient, in float64."""
    x = x.astype("float64")
    shifted = x - x.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    aim = np.full(x.shape, epsilon / x.shape[1])
    counts = targets >= 0
    aim[np.flatnonzero(counts), targets[counts]] += 1 - epsilon
    aim[~counts] = 0
    return -(aim * logs).sum() * share, (np.exp(logs) * counts[:, None] - aim) * share


@pytest.mark.parametrize(("xp", "dtype"), EVERYWHERE, indirect=["xp"])
@pytest.mark.parametrize(("n", "v"), [(5, 7), (12, 64), (3, 4099)])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_loss_and_gradient(xp, dtype, n, v, epsilon):
    rng = np.random.default_rng(0)
    x = xp.asarray((5 * rng.normal(size=(n, v))).astype("float32")).astype(dtype)
    targets = rng.integers(-1, v, n)
    targets[0], targets[-1] = -1, v - 1
    share = 1 / (targets >= 0).sum()
    z, vjp = cuda.cross_entropy(x, xp.asarray(targets), share, epsilon)
    loss, dx = by_hand(x.get(), targets, share, epsilon)
    assert str(z.dtype) == "float32" and float(z) == pytest.approx(loss, rel=1e-5)
    (found,) = vjp(xp.ones((), "float32"), (True,))
    close(found.get(), dx, dtype, "dx")
    assert not found.get()[0].any()
