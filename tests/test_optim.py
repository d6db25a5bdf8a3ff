import math
from itertools import pairwise

import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.optim import SGD, Adagrad, Adam, AdamW, clip_grad_norm, warmup_cosine
from minipar.sparse import RowGradient
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


def plain_adagrad(x, gs, eps=1e-3):
    v = 0
    for n, g in enumerate(gs):
        v = v + g**2
        x = x - 0.1 / (n + 1) * g / (np.sqrt(v) + eps)
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


def test_adagrad_is_its_formula():
    named, grads = problem()
    before = {n: x.data.copy() for n, x in named.items()}
    found = train(Adagrad(named.items(), 1.0, eps=1e-3), named, grads)
    for n in named:
        expected = plain_adagrad(before[n], [g[n] for g in grads])
        np.testing.assert_allclose(found[n], expected, rtol=1e-12, atol=1e-15)


def rows_of(g):
    """A dense gradient that is zero outside of the rows 3 and 200, and the same as rows."""
    ids = np.array([3, 200])
    dense = np.zeros_like(g)
    dense[ids] = g[ids]
    return dense, RowGradient(ids, g[ids], g.shape)


@pytest.mark.parametrize("make", [lambda named: SGD(named, 0.1), Adagrad])
def test_sparse_gradients_give_the_bits_of_dense_ones(make):
    ends = []
    for kind in (0, 1):
        named, grads = problem(np.float32)
        optimizer = make(named.items())
        for step in grads:
            named["w"].grad = rows_of(step["w"])[kind]
            optimizer.step()
        ends.append(optimizer.state_dict() | {n: x.data for n, x in named.items()})
    assert (ends[0]["w"][3] != problem(np.float32)[0]["w"].data[3]).all()
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])


@pytest.mark.parametrize(
    "make",
    [Adam, AdamW, lambda named: SGD(named, 0.1, 0.9), lambda named: SGD(named, 0.1, 0.0, 0.1)],
)
def test_what_would_move_untouched_rows_refuses_sparse_gradients(make):
    named, grads = problem()
    optimizer = make(named.items())
    named["w"].grad = rows_of(grads[0]["w"])[1]
    with pytest.raises(UsageError, match=r"gradient of w is sparse.*Use Adagrad"):
        optimizer.step()


def test_clipping_counts_and_scales_sparse_gradients():
    named, grads = problem()
    dense, named["w"].grad = rows_of(grads[0]["w"])
    named["b"].grad = grads[0]["b"].copy()
    norm = math.sqrt(float((dense**2).sum() + (grads[0]["b"] ** 2).sum()))
    assert clip_grad_norm(named.values(), 1.0) == pytest.approx(norm)
    np.testing.assert_allclose(named["w"].grad.dense(), dense / norm, rtol=1e-12)


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


def test_two_parameters_of_one_name_are_refused():
    x, y = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    with pytest.raises(UsageError, match="two parameters are called a"):
        SGD([("a", x), ("b", x), ("a", y)], lr=0.1)
