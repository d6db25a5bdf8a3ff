import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.models import ViT
from minipar.models.vit import patches
from minipar.ops import cross_entropy
from minipar.optim import AdamW
from minipar.random import Draw, Init
from minipar.tensor import Tensor

SIZES = {"image": (6, 9, 2), "patch": 3, "classes": 4, "layers": 2, "d": 12, "heads": 3}
X = np.random.default_rng(0).normal(size=(5, 6, 9, 2))
Y = np.array([0, 1, 2, 3, 0])


def vit(dropout=0.0, dtype=np.float64):
    return ViT(Init(0, dtype), **SIZES, dropout=dropout)


def cut(image):
    """The six patches of an image, one after the other."""
    return [image[i : i + 3, j : j + 3] for i in (0, 3) for j in (0, 3, 6)]


def put_together(parts):
    return np.concatenate([np.concatenate(parts[n : n + 3], axis=1) for n in (0, 3)])


def test_patches_are_cut_out_row_by_row():
    found = patches(Tensor(X), 3).data
    assert found.shape == (5, 6, 18)
    for item, image in zip(found, X):
        assert all((row == part.reshape(-1)).all() for row, part in zip(item, cut(image)))


def test_without_positions_a_puzzle_is_its_solution():
    model = vit()
    order = [4, 0, 5, 2, 1, 3]
    puzzle = np.stack([put_together([cut(image)[n] for n in order]) for image in X])
    assert np.abs(model(puzzle).data - model(X).data).max() > 1e-6
    model.position.weight.data[...] = 0
    np.testing.assert_allclose(model(puzzle).data, model(X).data, rtol=1e-10)
    model.position.weight.data[...] = np.random.default_rng(1).normal(size=(6, 12))
    expected = model(X).data
    model.position.weight.data[...] = model.position.weight.data[order]  # they move along
    np.testing.assert_allclose(model(puzzle).data, expected, rtol=1e-10)


def test_images_do_not_see_each_other():
    whole = vit()(X).data
    assert whole.shape == (5, 4)
    for n in range(5):
        np.testing.assert_allclose(vit()(X[n : n + 1]).data[0], whole[n], rtol=1e-10)


def test_a_single_patch_is_the_formula_of_the_paper():
    model = ViT(Init(0, np.float64), (2, 2, 1), 2, classes=3, layers=1, d=4, heads=1)
    for n, parameter in enumerate(model.parameters()):
        parameter.data += np.random.default_rng(n).normal(size=parameter.shape) * 0.3
    w = model.state_dict()

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[name + ".weight"] + w[name + ".bias"]

    def linear(x, name):
        return x @ w[name + ".weight"] + w[name + ".bias"]

    image = np.random.default_rng(9).normal(size=(1, 2, 2, 1))
    x = linear(image.reshape(1, 4), "patch") + w["position.weight"]
    v = linear(norm(x, "blocks.0.norm1"), "blocks.0.attention.qkv")[:, 8:]  # it sees itself only
    x = x + linear(v, "blocks.0.attention.out")
    u = linear(norm(x, "blocks.0.norm2"), "blocks.0.mlp.up")
    u = u / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
    x = x + linear(u, "blocks.0.mlp.down")
    np.testing.assert_allclose(model(image).data, linear(norm(x, "norm"), "head"), rtol=1e-9)


def test_its_size_is_the_formula_of_the_docs():
    i, t, d, layers, classes = 18, 6, 12, 2, 4
    size = i * d + d + t * d + layers * (12 * d * d + 13 * d) + 2 * d + d * classes + classes
    assert sum(x.data.size for x in vit().parameters()) == size


def test_parts_of_a_batch_train_like_the_whole():
    def gradients(parts):
        model = vit(dropout=0.2)
        for rows in parts:
            part = slice(rows.start, rows.stop)
            loss = cross_entropy(model(X[part], Draw(0, 3, rows)), Y[part])
            (loss * (len(rows) / 5)).backward()
        return {name: x.grad for name, x in model.named_parameters()}

    whole, parts = gradients([range(5)]), gradients([range(3), range(3, 5)])
    for name, grad in whole.items():
        np.testing.assert_allclose(parts[name], grad, rtol=1e-9, atol=1e-12, err_msg=name)


def test_it_learns_where_the_bright_patch_is():
    """What only the positions can tell: in each image one of the six patches is brighter."""
    dice = np.random.default_rng(0)
    y = dice.integers(0, 6, 64)
    x = dice.normal(size=(64, 6, 9, 2)).astype(np.float32) * 0.1
    for image, n in zip(x, y):
        cut(image)[n][...] += 1
    model = ViT(Init(0), **{**SIZES, "classes": 6})
    optimizer = AdamW(model.named_parameters(), lr=0.01)
    assert cross_entropy(model(x), y).item() > 1.5  # ln 6 = 1.8: it knows nothing yet
    for step in range(100):
        optimizer.zero_grad()
        loss = cross_entropy(model(x, Draw(0, step, range(64))), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_dropout_falls_where_that_of_gpt_does():
    model = vit(0.5)
    names = [model.dropout.name]
    for block in model.blocks:
        names += [block.attention.dropout.name, block.mlp.dropout.name]
    assert names[:3] == ["dropout", "blocks.0.attention.dropout", "blocks.0.mlp.dropout"]
    assert (model(X).data == vit()(X).data).all()
    assert (model(X, Draw(0, 0, range(5))).data != vit()(X).data).any()


def test_images_that_do_not_fit_are_named():
    with pytest.raises(ShapeMismatch, match=r"float64\[5, 9, 6, 2\].*\[b, 6, 9, 2\]"):
        vit()(X.transpose(0, 2, 1, 3))
    with pytest.raises(UsageError, match="patches of 4"):
        ViT(Init(), (28, 30, 1), patch=4)
