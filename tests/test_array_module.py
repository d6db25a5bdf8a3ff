"""The same code on NumPy and on a GPU: every op, layer, model and optimizer runs on the stand-in.

The ops are those of OPS in tests/ops/test_all_ops.py; a new model gets a line in MODELS. What they
compute is compared with what they compute on NumPy, and nothing may cross the bus unseen.
"""

from collections import Counter

import numpy as np
import pytest

from minipar import checks, ops, recompute
from minipar.array import to_device, to_numpy
from minipar.models import GPT, MLP, generate
from minipar.optim import SGD, Adagrad, Adam, AdamW, clip_grad_norm
from minipar.parallel import checkpoint
from minipar.random import Draw, Init
from minipar.tensor import Tensor, no_grad
from tests.ops.test_all_ops import OPS, draw
from tests.strict_cupy import counts

# Ops that send what they are given as plain data, once: name: arrays
ONE = ("where", "dropout", "getitem", "gather", "embedding", "rotary", "cross_entropy", "nll")
SENDS = {
    **dict.fromkeys(ONE, 1),
    "binary_cross_entropy_with_logits": 1,
    "cross_entropy with options": 2,  # also which of them count
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPS)
def test_an_op_is_the_same_on_the_device(cupy, name, dtype):
    op, found = OPS[name], []
    for xp in (np, cupy):
        tensors = [Tensor(xp.asarray(a), requires_grad=True) for a in draw(op, op.shapes, dtype)]
        counts.clear()
        z = op.f(*tensors)
        z.backward(xp.full(z.shape, 2.0, z.dtype) - z.data)
        made = [z.data, *(x.grad for x in tensors)]
        assert all(isinstance(a, xp.ndarray) and a.dtype == dtype for a in made)
        crossed = counts.copy()
        found.append([to_numpy(a) for a in made])
    exact = {"rtol": 1e-12, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-5}
    for here, there in zip(*found, strict=True):
        assert here.shape == there.shape
        np.testing.assert_allclose(there, here, **exact)
    assert crossed == Counter(to_device=SENDS.get(name, 0))


# -- models ---------------------------------------------------------------------------------------

TOKENS = (np.arange(24).reshape(3, 8) * 7) % 11
NEXT = np.roll(TOKENS, -1)

# name: (the model, a batch (x, y), its loss)
MODELS = {
    "gpt": (
        lambda init, p: GPT(init, vocab=11, block=8, layers=2, d=8, heads=2, dropout=p),
        (TOKENS, NEXT),
        ops.cross_entropy,
    ),
    "mlp": (
        lambda init, p: MLP(init, vocab=11, context=3, d=4, hidden=(8, 8), dropout=p),
        (TOKENS, NEXT),
        ops.cross_entropy,
    ),
}


def trained(xp, name, make_optimizer, dropout=0.0, steps=2):
    """The weights and the losses; the last step's traffic is in `counts`."""
    make, batch, loss_of = MODELS[name]
    model = make(Init(0, np.float64, xp=xp), dropout)
    assert all(isinstance(w.data, xp.ndarray) for w in model.parameters())
    optimizer, losses = make_optimizer(model.named_parameters()), []
    for step in range(steps):
        counts.clear()
        x, y = to_device(batch, xp)
        loss = loss_of(model(x, Draw(0, step, range(len(y)))), y)
        optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm(model.parameters(), 0.1)
        optimizer.step()
        losses += [loss.item(), norm]
    traffic = counts.copy()
    assert isinstance(loss.data, xp.ndarray)
    return {n: to_numpy(w.data) for n, w in model.named_parameters()}, losses, traffic


OPTIMIZERS = {
    "adamw": lambda named: AdamW(named, lr=0.01, weight_decay=0.1),
    "adam": lambda named: Adam(named, lr=0.01, weight_decay=0.1),
    "sgd": lambda named: SGD(named, lr=0.1, momentum=0.9, weight_decay=0.1),
    "plain sgd": lambda named: SGD(named, lr=0.1),
    "adagrad": lambda named: Adagrad(named, lr=0.1),
}


def compare(on_host, on_device):
    assert on_host.keys() == on_device.keys()
    for name, w in on_host.items():
        np.testing.assert_allclose(on_device[name], w, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_the_same_on_the_device(cupy, name):
    """What crosses the bus: the batch (x and y), and two numbers back: the loss and the norm."""
    weights, losses, _ = trained(np, name, OPTIMIZERS["adamw"])
    same, again, traffic = trained(cupy, name, OPTIMIZERS["adamw"])
    compare(weights, same)
    assert again == pytest.approx(losses)
    assert traffic == Counter(to_device=2, to_host=2)


def test_a_mask_of_dropout_crosses_the_bus_for_each_layer(cupy):
    weights, losses, _ = trained(np, "gpt", OPTIMIZERS["adamw"], dropout=0.3)
    same, again, traffic = trained(cupy, "gpt", OPTIMIZERS["adamw"], dropout=0.3)
    compare(weights, same)
    assert again == pytest.approx(losses)
    assert traffic == Counter(to_device=2 + 5, to_host=2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_the_same_on_the_device(cupy, name):
    weights, _, _ = trained(np, "mlp", OPTIMIZERS[name], steps=3)
    same, _, traffic = trained(cupy, "mlp", OPTIMIZERS[name], steps=3)
    compare(weights, same)
    assert traffic == Counter(to_device=2, to_host=2)


def test_a_trained_model_can_be_saved_and_read(cupy, tmp_path):
    _, batch, _ = MODELS["gpt"]
    make = MODELS["gpt"][0]
    there, here = make(Init(1, xp=cupy), 0.0), make(Init(2), 0.0)
    optimizer = AdamW(there.named_parameters())
    ops.cross_entropy(there(batch[0]), batch[1]).backward()
    optimizer.step()
    checkpoint.save(tmp_path / "c", there.state_dict() | optimizer.state_dict(), {})
    arrays, _ = checkpoint.load(tmp_path / "c")
    here.load_state_dict({n: a for n, a in arrays.items() if "/" not in n and n != "step"})
    compare(
        {n: w.numpy() for n, w in here.named_parameters()},
        {n: w.numpy() for n, w in there.named_parameters()},
    )
    there.load_state_dict(here.state_dict())
    optimizer.load_state_dict({n: a for n, a in arrays.items() if "/" in n or n == "step"})
    assert all(isinstance(w.data, cupy.ndarray) for w in there.parameters())


def test_text_is_written_the_same(cupy):
    made = [
        generate(GPT(Init(3, xp=xp), block=8, layers=1, d=8, heads=2), b"ab", 5)
        for xp in (np, cupy)
    ]
    assert made[0] == made[1]


# -- the engine -----------------------------------------------------------------------------------


def gradients_in_all_ways(xp):
    """Of a weight that is used twice, between an input and a frozen weight."""
    numbers = np.random.default_rng(0).normal(size=(3, 4, 4))
    x, frozen, w = (Tensor(xp.asarray(a)) for a in numbers)
    w.requires_grad = True
    told, found, buffer = [], [], xp.zeros((2, 4, 4))
    w.when_final(told.append)

    def f(w=w):
        return (ops.tanh(x @ w @ frozen) @ w).sum()

    for g in (None, buffer[1]):  # an array of its own, then a view into a buffer
        w.grad = g
        f().backward()
        f().backward(xp.full((), 2.0))
        f().backward(defer=[w])()
        f().backward(retain_graph=True)
        recompute.checkpoint(f, w).backward()
        with checks():
            z = f()
        z.backward()
        found.append(to_numpy(w.grad.copy()))
        assert w.grad.base is (None if g is None else buffer)
        w.zero_grad()
    with no_grad():
        assert not f().requires_grad
    assert len(told) == 12 and w.grad is not None and not to_numpy(buffer).any()
    return found


def test_backward_in_all_its_ways_on_the_device(cupy):
    here, there = gradients_in_all_ways(np), gradients_in_all_ways(cupy)
    np.testing.assert_allclose(there, here, rtol=1e-12)


def test_a_sum_without_axes_is_no_scalar_that_two_share(cupy):
    x = Tensor(cupy.ones(3), requires_grad=True)
    total = x.sum()
    (total + total * 2 + total).backward()
    assert x.grad.get().tolist() == [4, 4, 4]
