import functools

import numpy as np
import pytest

from minipar import checkpoint
from minipar.errors import UsageError
from minipar.models import ResNet
from minipar.models.resnet import SIZES
from minipar.ops import cross_entropy
from minipar.random import Draw, Init
from minipar.tensor import Tensor

rng = np.random.default_rng(0)
X = rng.normal(size=(4, 8, 8, 3))


class Undrawn(Init):
    """Shapes alone: drawing 44 million numbers takes seconds."""

    def normal(self, parameter, shape, std):
        return np.empty(shape, np.float32)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("resnet-18", 11_689_512),
        ("resnet-34", 21_797_672),
        ("resnet-50", 25_557_032),
        ("resnet-101", 44_549_160),
    ],
)
def test_parameter_counts_are_those_published(size, expected):
    model = ResNet(Undrawn(), classes=1000, **SIZES[size])
    assert sum(x.data.size for x in model.parameters() if x.requires_grad) == expected


@pytest.mark.parametrize("block", ["basic", "bottleneck", "separable"])
@pytest.mark.parametrize("large", [False, True])
def test_all_parameters_learn(block, large):
    model = ResNet(Init(0, np.float64), 5, block=block, layers=(1, 2), width=4, large=large)
    for name, x in model.named_parameters():
        if name.endswith("norm.weight"):
            x.data[...] = 1  # else what stands before a gain of zero learns from the second step on
    logits = model(X, Draw(0, 0, range(4)))
    cross_entropy(logits, np.array([0, 1, 2, 4])).backward()
    assert logits.shape == (4, 5)
    for name, x in model.named_parameters():
        assert x.grad is None if "running" in name else np.abs(x.grad).max() > 0, name


def test_an_untrained_block_is_its_shortcut():
    model = ResNet(Init(0, np.float64), layers=(2,), width=4)
    z = model.stem(Tensor(X))
    z = Tensor(np.maximum(z.data, 0))
    assert (model.blocks[0](z, Draw(0, 0, range(4))).data == z.data).all()


def test_stages_halve_the_image_and_double_the_channels():
    model = ResNet(Init(), layers=(1, 2, 1), width=4)
    z, shapes = model.stem(Tensor(X.astype(np.float32))), []
    for block in model.blocks:
        z = block(z)
        shapes.append(z.shape[1:])
    assert shapes == [(8, 8, 4), (4, 4, 8), (4, 4, 8), (2, 2, 16)]
    assert [b.shortcut is None for b in model.blocks] == [True, False, True, False]


def test_init_paths_are_attribute_paths():
    init = Init(0, np.float64)
    for name, x in ResNet(init, block="separable", layers=(1, 1), width=4).named_parameters():
        if name.endswith("conv.weight"):
            std = (2 / np.prod(x.shape[:3])) ** 0.5
            assert (x.data == init.normal(name, x.shape, std)).all(), name


def test_float32_images_of_one_channel():
    model = ResNet(Init(), classes=3, channels=1, layers=(1,), width=4)
    logits = model(X[..., :1].astype(np.float32), Draw(0, 0, range(4)))
    assert logits.dtype == np.float32
    assert model(X[..., :1].astype(np.float32)).shape == (4, 3)


def test_recomputation_gives_the_same_bits_and_counts_a_batch_once():
    found = []
    for recompute in (False, True):
        model = ResNet(Init(), layers=(1, 1), width=4)
        weights = dict(model.named_parameters())
        if recompute:
            model.blocks = [functools.partial(checkpoint, block) for block in model.blocks]
        for rows in (range(2), range(2, 4)):  # two micro-batches
            x = X[rows.start : rows.stop].astype(np.float32)
            cross_entropy(model(x, Draw(0, 0, rows)), np.array([0, 1])).backward()
        kept = [w.data if w.grad is None else w.grad for w in weights.values()]
        found.append([array.tobytes() for array in kept])
    assert found[0] == found[1]


def test_an_unknown_block_is_named():
    with pytest.raises(UsageError, match="'wide'; use basic, bottleneck, separable"):
        ResNet(Init(), block="wide")
