"""What a rank holds, as boxes of the whole array; the oracle is where the numbers came from."""

from itertools import pairwise

import numpy as np
import pytest

from minipar.optim import AdamW
from minipar.parallel.held import Cut, Held, state, steps, views, weights
from minipar.parallel.sharding import Sharded
from minipar.tensor import Tensor

HOWS = [
    ((6, 4), Sharded(0, 6)),
    ((4, 6), Sharded(1, 6)),
    ((7, 3), Sharded(0, 7)),  # zeros fill up the last rank
    ((5, 12), Sharded(1, 12, parts=3)),  # q, k and v in a matrix
    ((24,), Sharded(0, 24, parts=3)),
]


@pytest.mark.parametrize(("shape", "how"), HOWS)
@pytest.mark.parametrize("p", [1, 2, 4])
@pytest.mark.parametrize("ranges", [1, 3])
def test_the_views_of_all_ranks_are_the_array(shape, how, p, ranges):
    """Slices, and flat ranges of slices: each number is in one view, and in its place."""
    numbers = np.arange(1, np.prod(shape) + 1).reshape(shape)
    seen = np.zeros_like(numbers)
    for r in range(p):
        own = how.cut(numbers, r, p)
        cut = Cut(how.axis, how.n, how.spans(r, p))
        bounds = np.linspace(0, own.size, ranges + 1).astype(int)
        for first, last in pairwise(bounds):
            flat = own.reshape(-1)[first:last].reshape((1,) * (own.ndim - 1) + (-1,))
            held = Held("model/w", flat, own.shape, int(first), cut)
            assert held.shape == shape
            for box, view in views(held):
                assert view.shape == box.shape
                seen[tuple(map(slice, *box))] += view
                view[...] = 0  # it is no copy
        assert not own.any()
    assert (seen == numbers).all()


def test_an_array_that_is_not_contiguous_is_held_as_it_is():
    x = np.zeros((3, 4)).T
    ((box, view),) = views(Held("model/x", x, (4, 3)))
    view[...] = 1
    assert box.shape == (4, 3) and x.all()


def test_weights_and_state_are_alive_and_steps_are_not():
    x, fixed = Tensor(np.ones(3), requires_grad=True), Tensor(np.ones(2))
    optimizer = AdamW([("x", x)])
    found = {h.name: h for h in [*weights([("x", x), ("fixed", fixed)]), *state(optimizer)]}
    assert list(found) == ["model/x", "model/fixed", "optimizer/step", "optimizer/x/m",
                           "optimizer/x/v"]  # fmt: skip
    assert found["model/x"].array is x.data and found["model/x"].equal
    assert not found["model/fixed"].equal  # of ranks that differ, the first counts
    assert found["optimizer/x/m"].array is optimizer.state["x"]["m"]
    assert found["optimizer/x/m"].parameter == "x"
    optimizer.steps = 5
    assert found["optimizer/step"].array == 0 and steps(optimizer).array == 5
