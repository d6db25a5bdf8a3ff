from typing import ClassVar

import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.models import GPT, MLP, ViT, WideDeep
from minipar.ops import cross_entropy
from minipar.optim import AdamW
from minipar.random import Draw, Init

SIZES = {"vocab": 20, "block": 8, "layers": 2, "d": 12, "heads": 3}
IDX = np.random.default_rng(0).integers(0, 20, size=(4, 8))


def gpt(dropout: float = 0.0, dtype: type = np.float32) -> GPT:
    return GPT(Init(0, dtype), **SIZES, dropout=dropout)


def plain_gpt(w: dict[str, np.ndarray], idx: np.ndarray, heads: int) -> np.ndarray:
    """The whole model once more, in NumPy, one batch item at a time."""

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[name + ".weight"] + w[name + ".bias"]

    def linear(x, name):
        return x @ w[name + ".weight"] + w[name + ".bias"]

    def item(tokens):
        t = len(tokens)
        x = w["token.weight"][tokens] + w["position.weight"][:t]
        for n in range(2):
            q, k, v = np.split(
                linear(norm(x, f"blocks.{n}.norm1"), f"blocks.{n}.attention.qkv"), 3, 1
            )
            mixed = []
            for qh, kh, vh in zip(*(np.split(a, heads, axis=1) for a in (q, k, v))):
                e = np.exp(qh @ kh.T / np.sqrt(qh.shape[1])) * np.tri(t)
                mixed.append(e / e.sum(1, keepdims=True) @ vh)
            x = x + linear(np.concatenate(mixed, 1), f"blocks.{n}.attention.out")
            u = linear(norm(x, f"blocks.{n}.norm2"), f"blocks.{n}.mlp.up")
            u = u / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
            x = x + linear(u, f"blocks.{n}.mlp.down")
        return norm(x, "norm") @ w["token.weight"].T

    return np.stack([item(tokens) for tokens in idx])


def test_the_model_is_the_one_of_the_paper():
    model = gpt(dtype=np.float64)
    for n, x in enumerate(model.parameters()):
        x.data += np.random.default_rng(n).normal(size=x.shape) * 0.3
    expected = plain_gpt(model.state_dict(), IDX, heads=3)
    np.testing.assert_allclose(model(IDX).data, expected, rtol=1e-9, atol=1e-9)
    assert model(IDX[:, :3]).shape == (4, 3, 20)


class Spy(Init):
    """Notes the full name of everything that is drawn from it."""

    drawn: ClassVar[list[str]] = []

    def normal(self, parameter, shape, std):
        self.drawn.append(self.name(parameter))
        return super().normal(parameter, shape, std)

    def zeros(self, parameter, shape):
        self.drawn.append(self.name(parameter))
        return super().zeros(parameter, shape)

    def ones(self, parameter, shape):
        self.drawn.append(self.name(parameter))
        return super().ones(parameter, shape)


@pytest.mark.parametrize(
    "model", [lambda init: GPT(init, **SIZES), MLP, ViT, lambda init: WideDeep(init, (3, 4), 2)]
)
def test_every_parameter_is_drawn_under_its_own_name(model):
    Spy.drawn.clear()
    names = [name for name, _ in model(Spy()).named_parameters()]
    assert sorted(names) == sorted(Spy.drawn)


def test_init_paths_are_attribute_paths():
    # A slice of a parallel layer is drawn by name, so the names must be those of the model.
    init = Init(0)
    for name, x in gpt().named_parameters():
        if name.endswith("weight") and "norm" not in name:
            std = 0.02 / 2 if name.endswith(("out.weight", "down.weight")) else 0.02  # √(2·2) = 2
            assert (x.data == init.normal(name, x.shape, std)).all(), name


def test_dropout_layers_are_named_by_their_path():
    model = gpt(dropout=0.1)
    found = [model.dropout.name]
    for block in model.blocks:
        found += [block.attention.dropout.name, block.mlp.dropout.name]
    assert found == [
        "dropout",
        "blocks.0.attention.dropout",
        "blocks.0.mlp.dropout",
        "blocks.1.attention.dropout",
        "blocks.1.mlp.dropout",
    ]


def test_output_weights_are_the_token_table():
    names = [name for name, _ in gpt().named_parameters()]
    assert len(names) == 2 + 2 * 12 + 2 and "token.weight" in names
    model = gpt(dtype=np.float64)
    cross_entropy(model(IDX), IDX).backward()
    grad = model.token.weight.grad.copy()
    d = np.random.default_rng(1).normal(size=grad.shape)
    ends = []
    for sign in (1, -1):
        model.token.weight.data += sign * 1e-5 * d
        ends.append(cross_entropy(model(IDX), IDX).item())
        model.token.weight.data -= sign * 1e-5 * d
    assert (grad * d).sum() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_parts_of_a_batch_train_like_the_whole():
    def gradients(parts):
        model = gpt(dropout=0.2, dtype=np.float64)
        for rows in parts:
            idx = IDX[rows.start : rows.stop]
            loss = cross_entropy(model(idx, Draw(0, 3, rows)), idx)
            (loss * (len(rows) / 4)).backward()
        return {name: x.grad for name, x in model.named_parameters()}

    whole, parts = gradients([range(4)]), gradients([range(3), range(3, 4)])
    for name, grad in whole.items():
        np.testing.assert_allclose(parts[name], grad, rtol=1e-9, atol=1e-12, err_msg=name)


def test_it_learns_a_text_by_heart():
    model = gpt()
    optimizer = AdamW(model.named_parameters(), lr=0.02)
    x, y = IDX[:, :-1], IDX[:, 1:]
    first = cross_entropy(model(x), y).item()
    assert first == pytest.approx(np.log(20), rel=0.02)  # knows nothing yet
    for _ in range(60):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * first


def test_too_many_positions_are_named():
    with pytest.raises(ShapeMismatch, match=r"9 positions.*8"):
        gpt()(np.zeros((1, 9), int))
