"""The same models in PyTorch, as one would write them there: eager, with its fused ops.

Only for comparison; this is the one file that imports torch. Each model names its layers as
minipar's does, so that `load_minipar` can copy weights over by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from minipar.bench.workloads import Workload
from minipar.bench.writing import PROMPT


class Twin(NamedTuple):
    """model(**sizes)(x) is trained with loss(logits, y); x and y are those of the workload."""

    model: Callable[..., nn.Module]
    optimizer: Callable[[Iterator[Any]], torch.optim.Optimizer]
    loss: Callable[[Any, Any], Any] = F.cross_entropy


class TorchSteps:
    """A model and its optimizer; step(*batch(n)) trains on batch n and returns the loss."""

    def __init__(self, work: Workload, threads: int) -> None:
        torch.set_num_threads(threads)
        self.work, self.twin = work, TWINS[work.kind]
        self.model = self.twin.model(**work.sizes)
        self.optimizer = self.twin.optimizer(self.model.parameters())

    def batch(self, n: int) -> tuple[Any, Any]:
        x, y = self.work.batch(n)
        return _tensors(x), _tensors(y)

    def step(self, x: Any, y: Any) -> float:
        self.optimizer.zero_grad()
        loss = self.twin.loss(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()


class TorchWriting:
    """Writing with a cache; step(*batch(n)) fills the block after the prompt with likely bytes."""

    def __init__(self, work: Workload, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model: Any = TWINS[work.kind].model(**work.sizes).eval()
        self.block, layers = work.sizes["block"], work.sizes["layers"]
        d, heads = work.sizes["d"], work.sizes["heads"]
        self.past = torch.empty(layers, 2, 1, heads, self.block, d // heads)

    def batch(self, n: int) -> tuple[bytes, int]:
        return PROMPT, self.block - len(PROMPT)

    @torch.inference_mode()
    def step(self, prompt: bytes, count: int) -> bytes:
        text, done = list(prompt), 0
        for _ in range(count):
            logits = self._read(torch.tensor([text[done:]]), done)
            done = len(text)
            text.append(int(logits.argmax()))
        return bytes(text)

    def _read(self, idx: Any, first: int) -> Any:
        """The logits [vocab] after t more tokens [1, t], of which there were `first` before."""
        model, t = self.model, idx.shape[1]
        x = model.token(idx) + model.position.weight[first : first + t]
        for block, past in zip(model.blocks, self.past):
            x = x + block.attention.extend(block.norm1(x), past, first)
            x = x + block.mlp(block.norm2(x))
        return F.linear(model.norm(x[:, -1]), model.token.weight)[0]


def shared(steps: TorchSteps, kind: str, ranks: int) -> None:
    """Spread the steps over the ranks of the process group, in torch's ways.

    torch        DistributedDataParallel
    torch-zero1  the same, with ZeroRedundancyOptimizer
    torch-fsdp   fully_shard on each block of a GPT or layer of an MLP, and on the whole
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.nn.parallel import DistributedDataParallel

    if kind == "torch-fsdp":
        mesh = init_device_mesh("cpu", (ranks,))
        parts: Any = getattr(steps.model, "blocks" if steps.work.kind == "gpt" else "layers")
        for part in parts:
            fully_shard(part, mesh=mesh)
        fully_shard(steps.model, mesh=mesh)
        steps.optimizer = steps.twin.optimizer(steps.model.parameters())
        return
    steps.model = DistributedDataParallel(steps.model)
    if kind == "torch-zero1":
        steps.optimizer = ZeroRedundancyOptimizer(
            steps.model.parameters(), type(steps.optimizer), **_settings(steps.optimizer)
        )


def _settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What the optimizer was made with, as far as it is not the default."""
    make: Any = type(optimizer)
    known = make([torch.zeros(1)]).defaults
    return {name: value for name, value in optimizer.defaults.items() if value != known[name]}


def _tensors(arrays: Any) -> Any:
    if isinstance(arrays, tuple):
        return tuple(map(_tensors, arrays))
    return torch.from_numpy(arrays.copy())


def load_minipar(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Copy the arrays of a minipar model in, by name, each into the order that torch has its axes:
    [o, i] for linear layers, [o, i, kh, kw] for convolutions, tables as they are.
    """
    own, modules = model.state_dict(), dict(model.named_modules())
    for name, array in state.items():
        table = isinstance(modules[name.rpartition(".")[0]], nn.Embedding)
        value = torch.from_numpy(array)
        if not table and value.ndim in (2, 4):
            value = value.T if value.ndim == 2 else value.permute(3, 2, 0, 1)
        own[name].copy_(value)


# -- the twins --------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Any) -> Any:
        b, t, d = x.shape
        qkv = self.qkv(x).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(b, t, d))

    def extend(self, x: Any, past: Any, first: int) -> Any:
        """Of t positions after `first` ones, whose keys and values are in past [2, b, h, n, c]."""
        b, t, d = x.shape
        q, *new = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        past[:, :, :, first : first + t] = torch.stack(new)
        k, v = past[:, :, :, : first + t]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)  # t > 1: first is 0
        return self.out(mixed.transpose(1, 2).reshape(b, t, d))


class FeedForward(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Any) -> Any:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(d), Attention(d, heads)
        self.norm2, self.mlp = nn.LayerNorm(d), FeedForward(d)

    def forward(self, x: Any) -> Any:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TorchGPT(nn.Module):
    def __init__(self, vocab: int, block: int, layers: int, d: int, heads: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocab, d), nn.Embedding(block, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d)

    def forward(self, idx: Any) -> Any:
        x = self.token(idx) + self.position(torch.arange(idx.shape[1], device=idx.device))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.token.weight)


class TorchMLP(nn.Module):
    """The language model of models/mlp.py."""

    def __init__(self, vocab: int, context: int, d: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.context = context
        self.token = nn.Embedding(vocab, d)
        sizes = [context * d, *hidden]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.out = nn.Linear(sizes[-1], vocab)

    def forward(self, idx: Any) -> Any:
        windows = F.pad(idx, (self.context - 1, 0)).unfold(1, self.context, 1)
        x = self.token(windows).flatten(2)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.out(x)


class TorchReluMLP(nn.Module):
    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))

    def forward(self, x: Any) -> Any:
        x = self.layers[0](x)
        for layer in self.layers[1:]:
            x = layer(F.relu(x))
        return x


class ConvNorm(nn.Module):
    def __init__(self, i: int, o: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(o)

    def forward(self, x: Any) -> Any:
        return self.norm(self.conv(x))


class ResidualBlock(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.ModuleList([ConvNorm(i, o, 3, stride), ConvNorm(o, o, 3, 1)])
        same = i == o and stride == 1
        self.shortcut = None if same else ConvNorm(i, o, 1, stride)

    def forward(self, x: Any) -> Any:
        z = self.branch[1](F.relu(self.branch[0](x)))
        return F.relu(z + (x if self.shortcut is None else self.shortcut(x)))


class TorchResNet(nn.Module):
    """models/resnet.py with basic blocks, for small images; channels come first inside."""

    def __init__(self, classes: int, layers: Sequence[int], width: int) -> None:
        super().__init__()
        self.stem = ConvNorm(3, width, 3, 1)
        widths = [width * 2**stage for stage, count in enumerate(layers) for _ in range(count)]
        self.blocks = nn.ModuleList(
            ResidualBlock(i, o, 1 if i == o else 2) for i, o in pairwise([width, *widths])
        )
        self.out = nn.Linear(widths[-1], classes)

    def forward(self, x: Any) -> Any:
        z = F.relu(self.stem(x.permute(0, 3, 1, 2).contiguous()))
        for block in self.blocks:
            z = block(z)
        return self.out(z.mean((2, 3)))


def _of_every_position(logits: Any, y: Any) -> Any:
    return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def _adamw(parameters: Iterator[Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


TWINS: Mapping[str, Twin] = MappingProxyType(
    {
        "gpt": Twin(TorchGPT, _adamw, _of_every_position),
        "cnn": Twin(TorchResNet, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
        "mlp-text": Twin(TorchMLP, _adamw, _of_every_position),
        "shallow": Twin(TorchReluMLP, lambda p: torch.optim.SGD(p, lr=0.01)),
        "mlp": Twin(TorchReluMLP, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
    }
)
