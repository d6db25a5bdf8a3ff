"""Into what is cut and out again: a pair of layers through `Shards` is the plain pair."""

import numpy as np
import pytest

import minipar
from minipar.checks import checks
from minipar.errors import MiniparError, UsageError
from minipar.ops import linear, tanh
from minipar.parallel.sharding import Sharded
from minipar.parallel.shards import Shards
from minipar.random import Init
from minipar.tensor import Tensor

B, T, I, H, O = 2, 12, 3, 12, 5
DICE = np.random.default_rng(0)
X, W1, W2 = (DICE.normal(size=s) for s in ((B, T, I), (I, H), (H, O)))
DZ = DICE.normal(size=(B, T, O))


def plain():
    x, w1, w2 = (Tensor(a, requires_grad=True) for a in (X, W1, W2))
    z = linear(tanh(linear(x, w1)), w2)
    z.backward(DZ)
    return z.data, x.grad, w1.grad, w2.grad


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_pair_of_layers_is_the_plain_pair(p, sequence, overlap):
    def work(group):
        shards = Shards(group, sequence, overlap)
        mine = np.array_split(np.arange(T), p)[group.rank] if sequence else slice(None)
        x = Tensor(X[:, mine], requires_grad=True)
        w1, w2 = shards.slice(W1, Sharded(1, H)), shards.slice(W2, Sharded(0, H))
        partial = linear(tanh(shards.through(linear, x, (w1,), "up")), w2)
        z = shards.leave(partial, "down")
        z.backward(DZ[:, mine])
        return z.data, x.grad, w1.grad, w2.grad

    zs, dxs, dw1s, dw2s = zip(*minipar.run(work, p))
    z, dx, dw1, dw2 = plain()
    whole = (lambda parts: np.concatenate(parts, axis=1)) if sequence else (lambda parts: parts[-1])
    for found, expected in (
        (whole(zs), z),
        (whole(dxs), dx),
        (np.concatenate(dw1s, axis=1), dw1),
        (np.concatenate(dw2s, axis=0), dw2),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_things_that_cannot_be_shared_out_are_refused_by_name():
    def work(group):
        Shards(group).check(Init() / "attention", "heads", 4)

    minipar.run(work, 2)
    with pytest.raises(UsageError, match="attention: 4 heads cannot be shared out evenly among 3"):
        minipar.run(work, 3)


def test_own_features_do_not_enter_a_second_time():
    def work(group):
        shards = Shards(group)
        with checks():
            w = shards.slice(W1, Sharded(1, H))
            own = shards.through(linear, Tensor(X, requires_grad=True), (w,), "up")
            shards.enter(own, "again")

    with pytest.raises(MiniparError, match="again"):
        minipar.run(work, 2)
