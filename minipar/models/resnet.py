"""ResNet: a deep network for images, of blocks that each add a correction (He et al. 2016).

    image ─ stem ─ block ─ ... ─ block ─ mean over places ─ linear ─ logits

    block:   x = relu(branch(x) + shortcut(x))

      basic         3×3 ─ 3×3
      bottleneck    1×1 ─ 3×3 ─ 1×1     the 3×3 sees a quarter of the channels
      separable     depthwise 3×3 ─ 1×1     (MobileNet: Howard et al. 2017)

Every convolution is followed by a batch norm, and all but the last of a branch by a relu. The first
block of each stage but the first halves the image and doubles the channels; there, and where else
the number of channels changes, the shortcut is a 1×1 convolution, otherwise it is x itself.

The last gain of each branch starts at zero, so that the untrained network is shallow and each block
has to earn its correction (Goyal et al. 2017, section 5.1).

Letters: b images, h, w height and width, c channels, i, o channels in and out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from minipar.array import Array
from minipar.errors import UsageError
from minipar.nn import BatchNorm, Conv2d, Linear, Module, Piece, chain
from minipar.ops import max_pool2d, relu
from minipar.random import Draw, Init
from minipar.tensor import Tensor


class ConvNorm(Module):
    """A convolution that keeps the size of the image (by stride 1) and its batch norm."""

    def __init__(
        self,
        init: Init,
        i: int,
        o: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        gain: float = 1.0,
    ) -> None:
        self.conv = Conv2d(
            init / "conv", i, o, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm = BatchNorm(init / "norm", o, gain=gain)

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        return self.norm(self.conv(x), draw)


def basic(init: Init, i: int, o: int, stride: int) -> list[ConvNorm]:
    return [ConvNorm(init / 0, i, o, 3, stride), ConvNorm(init / 1, o, o, 3, gain=0.0)]


def bottleneck(init: Init, i: int, o: int, stride: int) -> list[ConvNorm]:
    """The stride is the 3×3's, as everybody has it today; the paper gave it to the first 1×1."""
    narrow = o // 4
    return [
        ConvNorm(init / 0, i, narrow, 1),
        ConvNorm(init / 1, narrow, narrow, 3, stride),
        ConvNorm(init / 2, narrow, o, 1, gain=0.0),
    ]


def separable(init: Init, i: int, o: int, stride: int) -> list[ConvNorm]:
    return [ConvNorm(init / 0, i, i, 3, stride, groups=i), ConvNorm(init / 1, i, o, 1, gain=0.0)]


BRANCHES: Mapping[str, Any] = MappingProxyType(
    {"basic": basic, "bottleneck": bottleneck, "separable": separable}
)


class Block(Module):
    """x = relu(branch(x) + shortcut(x)).   x: [b, h, w, i] -> [b, h/stride, w/stride, o]."""

    def __init__(self, init: Init, kind: str, i: int, o: int, stride: int) -> None:
        self.branch = BRANCHES[kind](init / "branch", i, o, stride)
        same = i == o and stride == 1
        self.shortcut = None if same else ConvNorm(init / "shortcut", i, o, 1, stride)

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        z = x
        for layer in self.branch[:-1]:
            z = relu(layer(z, draw))
        z = self.branch[-1](z, draw)
        return relu(z + (x if self.shortcut is None else self.shortcut(x, draw)))


class ResNet(Module):
    """x: float [b, h, w, channels]   ->   logits [b, classes].

    block:   "basic", "bottleneck" or "separable".   layers: blocks in each stage.
    width:   channels out of the stem, doubled at each stage; a bottleneck gives out four times it.
    large:   for images of about 224×224: the stem is 7×7 with stride 2 and a max pool, so the first
             stage sees a sixteenth of the pixels. Otherwise it is 3×3 (CIFAR, MNIST).
    """

    def __init__(
        self,
        init: Init,
        classes: int = 10,
        channels: int = 3,
        block: str = "basic",
        layers: Sequence[int] = (1, 1, 1),
        width: int = 16,
        large: bool = False,
    ) -> None:
        if block not in BRANCHES:
            raise UsageError(f"ResNet: there is no block {block!r}; use {', '.join(BRANCHES)}.")
        self.large = large
        kernel, stride = (7, 2) if large else (3, 1)
        self.stem = ConvNorm(init / "stem", channels, width, kernel, stride)
        self.blocks: list[Block] = []
        i = width
        for stage, count in enumerate(layers):
            o = width * 2**stage * (4 if block == "bottleneck" else 1)
            for n in range(count):
                stride = 2 if stage and not n else 1
                name = init / "blocks" / len(self.blocks)
                self.blocks.append(Block(name, block, i, o, stride))
                i = o
        self.out = Linear(init / "out", i, classes, std=i**-0.5)

    def __call__(self, x: Array | Tensor, draw: Draw | None = None) -> Tensor:
        return chain(self.pieces(), x, draw)

    def pieces(self) -> list[Module]:
        """Stem, blocks, output: what a pipeline cuts between."""
        return [Piece(self.begin, self.stem), *self.blocks, Piece(self.logits, self.out)]

    def begin(self, x: Array | Tensor, draw: Draw | None = None) -> Tensor:
        z = relu(self.stem(x if isinstance(x, Tensor) else Tensor(x), draw))
        return max_pool2d(z, 3, stride=2, padding=1) if self.large else z

    def logits(self, z: Tensor, draw: Draw | None = None) -> Tensor:
        return self.out(z.mean(axis=(1, 2)))


def _size(block: str, layers: tuple[int, ...], width: int, large: bool) -> Mapping[str, Any]:
    return MappingProxyType({"block": block, "layers": layers, "width": width, "large": large})


# ResNet(init, classes, **SIZES["resnet-50"])
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "resnet-8": _size("basic", (1, 1, 1), 16, False),
        "resnet-20": _size("basic", (3, 3, 3), 16, False),
        "resnet-18": _size("basic", (2, 2, 2, 2), 64, True),
        "resnet-34": _size("basic", (3, 4, 6, 3), 64, True),
        "resnet-50": _size("bottleneck", (3, 4, 6, 3), 64, True),
        "resnet-101": _size("bottleneck", (3, 4, 23, 3), 64, True),
        "separable-20": _size("separable", (3, 3, 3), 32, False),
    }
)
