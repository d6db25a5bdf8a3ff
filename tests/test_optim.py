import math
from itertools import pairwise

import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.optim import SGD, Adam, AdamW, clip_grad_norm, warmup_cosine
from minipar.tensor import Tensor

STEPS = 4


def problem(dtype=np.float64):
    """Two parameters, larger than a block and not a multiple of one, and their gradients."""
    rng = np.random.default_rng(0)
    shapes = {"w": (301, 211), "b": (5,)}
    named = {n: Tensor(rng.normal(size=s).astype(dtype), True) for n, s in shapes.items()}
    grads = [{n: rng.normal(size=s).astype(dtype) for n, s in shapes.items()} for _ in range(STEPS)]
    return named, grads


def train(optimizer, named, grads):
    for n, step in enumerate(grads):
        optimizer.lr = 0.1 / (n + 1)
        for name, x in named.items():
            x.grad = step[name].copy()
        optimizer.step()
    return {name: x.data for name, x in named.items()}


def plain_sgd(x, gs, momentum, decay):
    m = 0
    for n, g in enumerate(gs):
        m = momentum * m + g + decay * x
        x = x - 0.1 / (n + 1) * m
    return x


def plain_adam(x, gs, decay, coupled, betas=(0.8, 0.95), eps=1e-3):
    m = v = 0
    for n, g in enumerate(gs):
        lr = 0.1 / (n + 1)
        if coupled:
            g = g + decay * x
        else:
            x = x - lr * decay * x
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        m_hat, v_hat = m / (1 - betas[0] ** (n + 1)), v / (1 - betas[1] ** (n + 1))
        x = x - lr * m_hat / (np.sqrt(v_hat) + eps)
    return x


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_is_its_formula(momentum, decay):
    named, grads = problem()
    before = {n: x.data.copy() for n, x in named.items()}
    found = train(SGD(named.items(), 1.0, momentum, decay), named, grads)
    for n in named:
        expected = plain_sgd(before[n], [g[n] for g in grads], momentum, decay)
        np.testing.assert_allclose(found[n], expected, rtol=1e-12)


@pytest.mark.parametrize(("kind", "coupled"), [(Adam, True), (AdamW, False)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("vectors", [True, False])
def test_adam_is_its_formula(kind, coupled, decay, vectors):
    named, grads = problem()
    before = {n: x.data.copy() for n, x in named.items()}
    optimizer = kind(named.items(), 1.0, (0.8, 0.95), 1e-3, decay, decay_vectors=vectors)
    found = train(optimizer, named, grads)
    for n, x in named.items():
        own = decay if x.ndim > 1 or vectors else 0.0
        expected = plain_adam(before[n], [g[n] for g in grads], own, coupled)
        np.testing.assert_allclose(found[n], expected, rtol=1e-10, atol=1e-12)


def test_float32_parameters_keep_their_dtype_and_place():
    named, grads = problem(np.float32)
    arrays = {n: x.data for n, x in named.items()}
    train(AdamW(named.items()), named, grads)
    assert all(x.data is arrays[n] and x.dtype == np.float32 for n, x in named.items())


def test_gradients_are_not_written_to():
    named, grads = problem()
    for optimizer in (SGD(named.items(), 0.1, 0.9, 0.1), Adam(named.items(), weight_decay=0.1)):
        for n, x in named.items():
            x.grad = grads[0][n].copy()
        optimizer.step()
        assert all((x.grad == grads[0][n]).all() for n, x in named.items())


def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened():
    named, grads = problem()
    whole = {n: x.copy() for n, x in train(AdamW(named.items()), named, grads * 2).items()}

    named, grads = problem()
    first = AdamW(named.items())
    train(first, named, grads)
    state = first.state_dict()
    assert sorted(state) == ["b/m", "b/v", "step", "w/m", "w/v"] and state["step"] == STEPS
    second = AdamW(named.items())
    second.load_state_dict(state)
    for n, step in enumerate(grads):
        second.lr = 0.1 / (STEPS + n + 1)
        for name, x in named.items():
            x.grad = step[name].copy()
        second.step()
    for n, x in named.items():
        assert (x.data == whole[n]).all()


def test_foreign_states_are_refused_whole():
    named, _ = problem()
    optimizer = AdamW(named.items())
    state = optimizer.state_dict()
    with pytest.raises(UsageError, match=r"missing \['w/v'\], unexpected \['c/m'\]"):
        optimizer.load_state_dict({**{n: a for n, a in state.items() if n != "w/v"}, "c/m": 0})
    with pytest.raises(ShapeMismatch, match="b/m"):
        optimizer.load_state_dict({**state, "w/m": state["w/m"] + 1, "b/m": np.zeros(6)})
    assert (optimizer.state["w"]["m"] == 0).all()


def test_parameters_without_gradient_or_frozen_are_left_alone():
    named, grads = problem()
    frozen = Tensor(np.ones(3))
    optimizer = SGD([*named.items(), ("frozen", frozen)], 0.1)
    before = named["b"].data.copy()
    named["w"].grad = grads[0]["w"]
    optimizer.step()
    assert (named["b"].data == before).all() and "frozen" not in optimizer.parameters
    optimizer.zero_grad()
    assert named["w"].grad is None


def test_a_parameter_that_is_a_strided_view_is_refused():
    with pytest.raises(UsageError, match="w is not contiguous"):
        SGD([("w", Tensor(np.ones((4, 4))[:, :2], requires_grad=True))], 0.1)


def test_clipping_scales_all_gradients_by_one_factor():
    named, grads = problem()
    for n, x in named.items():
        x.grad = grads[0][n].copy()
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads[0].values()))
    assert clip_grad_norm(named.values(), 2 * norm) == pytest.approx(norm)
    assert (named["w"].grad == grads[0]["w"]).all()
    clip_grad_norm(named.values(), 1.0)
    for n, x in named.items():
        np.testing.assert_allclose(x.grad, grads[0][n] / norm, rtol=1e-12)


def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine():
    rates = [warmup_cosine(n, 12, peak=1.0, warmup=4, floor=0.1) for n in range(13)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.55)  # half way down
    assert rates[12] == pytest.approx(0.1) == warmup_cosine(99, 12, 1.0, 4, 0.1)
    assert all(a >= b for a, b in pairwise(rates[4:]))


def test_parameters_without_names_are_refused():
    """Two rows of a tensor would unpack as a pair, and nothing would be trained."""
    with pytest.raises(UsageError, match=r"wants model\.named_parameters\(\)"):
        SGD([Tensor([[1.0], [2.0]], requires_grad=True)], lr=0.1)
