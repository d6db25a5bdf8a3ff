"""All parameters in one launch: a step, the norm, and a scale, against their definitions."""

import numpy as np
import pytest

from minipar import cuda
from minipar.array import to_numpy
from minipar.optim import Adam, AdamW, clip_grad_norm
from minipar.tensor import Tensor
from tests.cuda.test_kernels import EVERYWHERE, close


@pytest.mark.parametrize(("xp", "dtype"), EVERYWHERE, indirect=["xp"])
@pytest.mark.parametrize("copies", [False, True])
def test_adamw_is_that_of_the_definition(xp, copies, dtype):
    """Of parameters of all sizes in one launch, with gradients to be halved."""
    rng, sizes = np.random.default_rng(0), (1, 300_001, 1000)
    xs, gs = [[rng.normal(size=n).astype("float32") for n in sizes] for _ in range(2)]
    gs = [xp.asarray(g).astype(dtype) for g in gs]
    here = [Tensor(x.astype("float64"), requires_grad=True) for x in xs]
    optimizer = AdamW(list(zip("abc", here)), lr=0.1, weight_decay=0.2)
    parts = [
        cuda.Part(xp.asarray(x), g, *(xp.zeros(g.shape, "float32") for _ in range(2)), low, 0.2)
        for x, g in zip(xs, gs)
        for low in [xp.empty(g.shape, dtype) if copies else None]
    ]
    for step in (1, 2, 3):
        for x, g in zip(here, gs):
            x.grad = g.get().astype("float64") / 2
        optimizer.step()
        cuda.adamw(parts, cuda.Rates(0.1, (0.9, 0.999), 1e-8, step, scale=0.5))
    for part, x in zip(parts, here):
        close(part.x.get(), x.data, "float32", "x")
        if copies:
            np.testing.assert_array_equal(part.low.get(), part.x.astype(dtype).get())


@pytest.mark.parametrize(("xp", "dtype"), EVERYWHERE, indirect=["xp"])
def test_the_norm_of_many_gradients_and_their_scale(xp, dtype):
    rng = np.random.default_rng(0)
    grads = [xp.asarray(rng.normal(size=n).astype("float32")).astype(dtype) for n in (5, 70_001)]
    before = [g.get().astype("float64") for g in grads]
    norm = float(cuda.squared_norm(grads))
    assert norm == pytest.approx(sum((g * g).sum() for g in before), rel=1e-6)
    cuda.scale(grads, 0.25)
    for g, b in zip(grads, before):
        close(g.get(), b / 4, dtype, "scaled")


@pytest.mark.parametrize("make", [AdamW, Adam])
def test_an_optimizer_steps_in_one_launch_what_it_can(xp, make):
    """Matrices and vectors, one of them without a gradient, one whose gradient lies transposed."""
    rng, shapes, found = np.random.default_rng(0), {"w": (7, 5), "b": (5,), "none": (3,)}, []
    numbers = {name: rng.normal(size=(2, *s)).astype("float32") for name, s in shapes.items()}
    for module, dtype in ((np, "float64"), (xp, "float32")):
        named = {n: Tensor(module.asarray(a[0].astype(dtype)), True) for n, a in numbers.items()}
        optimizer = make(named.items(), lr=0.1, weight_decay=0.2, decay_vectors=False)
        for _ in range(3):
            named["b"].grad = module.asarray(numbers["b"][1].astype(dtype))
            named["w"].grad = module.asarray(numbers["w"][1].T.astype(dtype).copy()).T
            norm = clip_grad_norm(named.values(), 0.5)
            optimizer.step()
        found.append([norm, *(to_numpy(x.data) for x in named.values())])
    for there, here in zip(*reversed(found)):
        close(np.asarray(there), here, "float32", make.__name__)
