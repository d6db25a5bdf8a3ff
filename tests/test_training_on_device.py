"""Training is the same on NumPy and on a GPU: models and optimizers on the stand-in for CuPy.

A new model gets a line in MODELS, which also says what crosses the bus in a step of it.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from minipar import ops
from minipar.array import to_device, to_numpy
from minipar.cli import main
from minipar.models import GPT, MLP, Reader, ResNet, ViT, WideDeep, generate, write
from minipar.nn import Module
from minipar.optim import SGD, Adagrad, Adam, AdamW, clip_grad_norm
from minipar.parallel import checkpoint
from minipar.random import Draw, Init
from minipar.tensor import Tensor, no_grad
from tests.strict_cupy import agree, counts, kernels

rng = np.random.default_rng(0)
TOKENS = np.arange(24).reshape(3, 8) * 7 % 11
LANGUAGE = (TOKENS, np.roll(TOKENS, -1)), ops.cross_entropy
IMAGES = (rng.normal(size=(4, 6, 6, 2)), np.array([1, 0, 2, 1])), ops.cross_entropy
CLICKS = (
    ((rng.normal(size=(5, 3)), np.array([[0, 1], [2, 0], [2, 3], [0, 1], [1, 1]])), np.eye(5)[1]),
    ops.binary_cross_entropy_with_logits,
)
CNN = {"classes": 3, "channels": 2, "width": 4}
BUS = {"to_device": 2, "to_host": 2}  # the batch; the loss and the norm of the gradient


class Run(NamedTuple):
    """A model that trains: how it is made, on what, and what crosses the bus in a step."""

    make: Callable[..., Module]  # of an Init and a share p of dropout
    data: tuple  # ((x, y), loss)
    bus: dict[str, int] = BUS


MODELS = {
    "mlp": Run(lambda i, p: MLP(i, 11, context=3, d=4, hidden=(8, 8), dropout=p), LANGUAGE),
    "gpt": Run(lambda i, p: GPT(i, 11, block=9, layers=2, d=8, heads=2, dropout=p), LANGUAGE),
    "vit": Run(lambda i, p: ViT(i, (6, 6, 2), 3, 3, 1, 8, 2, dropout=p), IMAGES),
    "resnet basic": Run(lambda i, p: ResNet(i, **CNN, layers=(1, 1)), IMAGES),
    "resnet bottleneck": Run(
        lambda i, p: ResNet(i, **CNN, block="bottleneck", layers=(1,)), IMAGES
    ),
    "resnet separable": Run(lambda i, p: ResNet(i, **CNN, block="separable", layers=(2,)), IMAGES),
    "resnet large": Run(lambda i, p: ResNet(i, **CNN, layers=(1,), large=True), IMAGES),
    # ids go to two tables; how many rows each gradient has is waited for
    "wide-deep": Run(
        lambda i, p: WideDeep(i, (3, 4), 3, 2, (4,), dropout=p),
        CLICKS,
        {**BUS, "to_device": 4, "waits": 2},
    ),
    "wide-deep dense": Run(
        lambda i, p: WideDeep(i, (3, 4), 3, 2, (4,), dropout=p, sparse=False),
        CLICKS,
        {**BUS, "to_device": 4},
    ),
}


def trained(xp, name, make_optimizer, dropout=0.0, steps=2):
    """The weights, losses and norms, and what crossed the bus in the last step."""
    make, (batch, loss_of), _ = MODELS[name]
    model = make(Init(0, np.float64, xp=xp), dropout)
    optimizer, seen = make_optimizer(model.named_parameters()), []
    for step in range(steps):
        counts.clear()
        x, y = to_device(batch, xp)
        loss = loss_of(model(x, Draw(0, step, range(len(y)))), y)
        optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm(model.parameters(), 0.1)
        optimizer.step()
        seen += [loss.item(), norm]
    crossed = counts.copy()
    with no_grad():
        seen.append(float(abs(to_numpy(model(x).data)).sum()))  # evaluation
    assert all(isinstance(w.data, xp.ndarray) for w in (loss, *model.parameters()))
    return {n: to_numpy(w.data) for n, w in model.named_parameters()}, seen, crossed


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
    optimizer = OPTIMIZERS["adagrad" if "wide" in name else "adamw"]
    weights, seen, _ = trained(np, name, optimizer)
    same, seen_there, crossed = trained(cupy, name, optimizer)
    compare(weights, same)
    assert seen_there == pytest.approx(seen)
    assert agree(crossed, MODELS[name].bus)


def test_dropout_sends_a_mask_for_each_layer(cupy):
    weights, seen, _ = trained(np, "gpt", OPTIMIZERS["adamw"], dropout=0.3)
    same, seen_there, crossed = trained(cupy, "gpt", OPTIMIZERS["adamw"], dropout=0.3)
    compare(weights, same)
    assert seen_there == pytest.approx(seen)
    assert agree(crossed, {"to_device": 2 + 5, "to_host": 2})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_the_same_on_the_device(cupy, name):
    weights, _, _ = trained(np, "mlp", OPTIMIZERS[name], steps=3)
    same, _, traffic = trained(cupy, "mlp", OPTIMIZERS[name], steps=3)
    compare(weights, same)
    assert agree(traffic, {"to_device": 2, "to_host": 2})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_a_large_array_at_once(cupy, name):
    called = []
    for n in (10, 100_000):
        x = Tensor(cupy.ones(n, np.float32), requires_grad=True)
        x.grad = cupy.ones(n, np.float32)
        optimizer = OPTIMIZERS[name]([("x", x)])
        kernels.clear()
        clip_grad_norm([x], 1.0)
        optimizer.step()
        called.append(kernels.copy())
    assert called[0] == called[1]


def test_a_trained_model_can_be_saved_and_read(cupy, tmp_path):
    make, (batch, _), _ = MODELS["gpt"]
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


def test_text_is_written_with_a_cache_the_same(cupy):
    made = [
        list(write(Reader(GPT(Init(3, xp=xp), block=8, layers=1, d=8, heads=2)), b"ab", 12))
        for xp in (np, cupy)
    ]
    assert made[0] == made[1]


# -- on a real GPU ------------------------------------------------------------------------------

SMALL = ["--steps", "20", "--eval-batches", "2", "--backend", "local"]
TEXT = ["--layers", "4", "--d", "64", "--heads", "4", "--block", "32"]
ON_GPU = {
    "gpt": [],
    "gpt, 2 x 2 x 2": ["--dp", "2", "--tp", "2", "--pp", "2", "--dropout", "0.1"],
    "gpt, bfloat16": ["--dp", "2", "--precision", "bfloat16"],
    "gpt, float16": ["--tp", "2", "--precision", "float16"],
    "gpt, process": ["--dp", "2", "--backend", "process"],
    "mlp": ["--dp", "2", "--overlap"],
    "resnet": ["--dp", "2", "--batch", "16", "--lr", "0.1"],
    "vit": ["--pp", "2"],
    "wide-deep": ["--dp", "2"],
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", ON_GPU)
def test_a_run_on_a_gpu_is_that_of_one_rank(name, tmp_path, monkeypatch, capfd):
    """`minipar train` repeats the first 20 steps on one rank, and ends with 1 if it differs."""
    monkeypatch.chdir(tmp_path)
    model = name.split(",")[0]
    text = TEXT if model == "gpt" else []
    given = ["train", model, *SMALL, *text, *ON_GPU[name], "--device", "cuda", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 0, capfd.readouterr().err
    assert json.loads(capfd.readouterr().out)["max_difference_to_one_rank"] is not None
