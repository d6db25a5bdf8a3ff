import functools
import weakref

import numpy as np
import pytest

import minipar
from minipar import Draw, Init, Tensor, checkpoint
from minipar.errors import GraphError, UsageError
from minipar.models import GPT
from minipar.nn import Block
from minipar.ops import cross_entropy, linear, relu, tanh
from minipar.tensor import no_grad, record


def weights():
    rng = np.random.default_rng(0)
    return [Tensor(rng.normal(size=(4, 4)), requires_grad=True) for _ in range(3)]


def run(w, keep):
    """Three layers; `keep` says whether the middle part is an ordinary one."""
    x = Tensor(np.random.default_rng(1).normal(size=(5, 4)), requires_grad=True)

    def part(h, scale):
        return tanh(linear(h * scale, w[1]) @ w[0])  # w[0] is used outside, too

    h = relu(linear(x, w[0]))
    h = part(h, 2.0) if keep else checkpoint(part, h, 2.0)
    (linear(h, w[2]) * h).sum().backward()
    return [x.grad, *(v.grad for v in w)]


def test_gradients_are_those_without_recomputation_also_of_shared_weights():
    for a, b in zip(run(weights(), True), run(weights(), False)):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_a_gpt_with_dropout_gives_the_same_bits():
    """Each block recomputed: the same masks fall, so not one bit of any gradient differs."""
    idx = np.arange(12).reshape(2, 6) % 11
    found = []
    for recompute in (False, True):
        model = GPT(Init(seed=3), vocab=11, block=6, layers=3, d=8, heads=2, dropout=0.4)
        weights = model.parameters()
        if recompute:
            model.blocks = [functools.partial(checkpoint, block) for block in model.blocks]
        loss = cross_entropy(model(idx, Draw(seed=1, step=5, rows=range(8, 10))), idx)
        loss.backward()
        found.append([loss.data.tobytes(), *(w.grad.tobytes() for w in weights)])
    assert found[0] == found[1]


def test_nothing_inside_is_kept_until_backward():
    alive = []

    def part(x):
        h = tanh(x)
        alive.append(weakref.ref(h.data))
        return h * h

    x = Tensor(np.ones(3), requires_grad=True)
    z = checkpoint(part, x)
    assert alive[0]() is None
    z.sum().backward()
    assert len(alive) == 2  # computed again
    np.testing.assert_allclose(x.grad, 2 * np.tanh(1) * (1 - np.tanh(1) ** 2))


def test_what_nobody_wants_is_not_computed():
    """Of two args only one needs a gradient: the vjp inside is asked for that one alone."""
    asked = []

    def product(x, y):
        def vjp(dz, wanted):
            asked.append(wanted)
            return dz * y.data if wanted[0] else None, dz * x.data if wanted[1] else None

        return record(x.data * y.data, (x, y), vjp)

    x, y = Tensor([2.0], requires_grad=True), Tensor([3.0], requires_grad=True)
    rest = checkpoint(product, x, y).backward([1.0], defer=[y])
    assert asked == [(True, False)] and x.grad == 3 and y.grad is None
    rest()
    assert asked == [(True, False), (False, True)] and y.grad == 2


def test_a_listener_hears_of_a_shared_weight_once_when_it_is_final():
    w = Tensor([2.0], requires_grad=True)
    heard = []
    w.when_final(lambda leaf: heard.append(leaf.grad.copy()))
    (checkpoint(lambda h: h * w, w * 3.0) + w).backward()  # 3 w² + w
    assert heard == [np.array([13.0])]


def test_checkpoints_nest():
    x = Tensor([0.5], requires_grad=True)
    checkpoint(lambda a: checkpoint(tanh, a * a) * a, x).backward()
    t = np.tanh(0.25)
    np.testing.assert_allclose(x.grad, t + 0.5 * (1 - t * t), rtol=1e-6)  # (tanh(x²) x)'


def test_without_gradients_it_is_a_call():
    with no_grad():
        z = checkpoint(lambda x: x * 2, Tensor([1.0], requires_grad=True))
    assert not z.requires_grad


def test_a_computed_tensor_of_outside_must_be_an_argument():
    x = Tensor([1.0], requires_grad=True)
    h = x * 2
    with pytest.raises(GraphError, match=r"mul at .*test_recompute.*checkpoint\(fn, x, h\)"):
        checkpoint(lambda a: a * h, x)


def test_it_must_return_a_tensor():
    with pytest.raises(UsageError, match="tuple"):
        checkpoint(lambda a: (a, a), Tensor([1.0]))


def test_checks_reach_inside():
    """A weight that is changed between forward and backward is found in the part, too."""
    w, x = Tensor([2.0], requires_grad=True), Tensor([1.0], requires_grad=True)
    with minipar.checks():
        z = checkpoint(lambda a: a * w, x) * w
    w.data += 1
    with pytest.raises(GraphError, match="changed in place"):
        z.backward()


def test_blocks_of_a_model_take_their_draw():
    block = Block(Init(), 8, 2, 0.5, 0.02, causal=True)
    x, draw = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("f4"), Draw(0, 0, range(2))
    assert (checkpoint(block, Tensor(x), draw).data == block(Tensor(x), draw).data).all()
