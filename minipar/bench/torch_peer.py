"""The same models in PyTorch, as one would write them there: eager, with its fused ops.

Only for comparison; this is the one file that imports torch. Linear weights lie [out, in] there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from minipar.bench.workloads import Workload, tokens


class Block(nn.Module):
    """The same block as in models/gpt.py."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Any) -> Any:
        b, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class TorchGPT(nn.Module):
    def __init__(self, vocab: int, block: int, layers: int, d: int, heads: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocab, d), nn.Embedding(block, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d)

    def forward(self, idx: Any) -> Any:
        x = self.token(idx) + self.position(torch.arange(idx.shape[1]))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.token.weight)


class TorchMLP(nn.Module):
    def __init__(self, vocab: int, context: int, d: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.context = context
        self.token = nn.Embedding(vocab, d)
        sizes = [context * d, *hidden]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, hidden))
        self.out = nn.Linear(sizes[-1], vocab)

    def forward(self, idx: Any) -> Any:
        windows = F.pad(idx, (self.context - 1, 0)).unfold(1, self.context, 1)
        x = self.token(windows).flatten(2)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.out(x)


class TorchSteps:
    """A model and its optimizer; step(n) trains on batch n and returns the loss."""

    def __init__(self, work: Workload, threads: int) -> None:
        torch.set_num_threads(threads)
        self.work = work
        self.model = (TorchGPT if work.kind == "gpt" else TorchMLP)(**work.sizes)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def step(self, n: int) -> float:
        x, y = (torch.from_numpy(a.copy()) for a in tokens(self.work, n))
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x).flatten(0, 1), y.flatten())
        loss.backward()
        self.optimizer.step()
        return loss.item()


def load_minipar(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Copy the weights of a minipar model in; its names differ only in where a layer stands."""
    own = dict(model.named_parameters())
    for name, array in state.items():
        short = name.replace(".attention.", ".").replace(".mlp.", ".")
        value = torch.from_numpy(array)
        transposed = value.ndim == 2 and short.split(".")[0] not in ("token", "position")
        with torch.no_grad():
            own[short].copy_(value.T if transposed else value)
