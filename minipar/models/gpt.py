"""GPT: a transformer that predicts the next token (Radford et al. 2019).

    token + position ─ dropout ─ block ─ ... ─ block ─ norm ─ · tokenᵀ ─ logits

    block:   x = x + attention(norm1(x))
             x = x + down(gelu(up(norm2(x))))

The norms stand before the branches (pre-LN), so that the sum runs through unchanged. The output
uses the token table again, transposed (tied weights).

Letters: b batch items, t positions, d features.
"""

from __future__ import annotations

from minipar.array import Array, array_module
from minipar.errors import ShapeMismatch
from minipar.nn import CausalSelfAttention, Dropout, Embedding, LayerNorm, Linear, Module
from minipar.nn.layers import STD
from minipar.ops import gelu, linear
from minipar.random import Draw, Init
from minipar.tensor import Tensor


class FeedForward(Module):
    """The same two-layer network at every position.   x: [b, t, d] -> [b, t, d]."""

    def __init__(self, init: Init, d: int, dropout: float, out_std: float) -> None:
        self.up = Linear(init / "up", d, 4 * d)
        self.down = Linear(init / "down", 4 * d, d, std=out_std)
        self.dropout = Dropout(init / "dropout", dropout)

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        return self.dropout(self.down(gelu(self.up(x))), draw)


class Block(Module):
    """Attention, then the feed-forward network, each on a branch.   x: [b, t, d] -> [b, t, d]."""

    def __init__(self, init: Init, d: int, heads: int, dropout: float, out_std: float) -> None:
        self.norm1 = LayerNorm(init / "norm1", d)
        self.attention = CausalSelfAttention(init / "attention", d, heads, dropout, out_std)
        self.norm2 = LayerNorm(init / "norm2", d)
        self.mlp = FeedForward(init / "mlp", d, dropout, out_std)

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), draw)
        return x + self.mlp(self.norm2(x), draw)


class GPT(Module):
    """idx: integers [b, t], t <= block   ->   logits [b, t, vocab]."""

    def __init__(
        self,
        init: Init,
        vocab: int = 256,
        block: int = 64,
        layers: int = 4,
        d: int = 128,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        out_std = STD / (2 * layers) ** 0.5  # 2·layers branches add up to a variance like one
        self.block = block
        self.token = Embedding(init / "token", vocab, d)
        self.position = Embedding(init / "position", block, d)
        self.dropout = Dropout(init / "dropout", dropout)
        self.blocks = [
            Block(init / "blocks" / n, d, heads, dropout, out_std) for n in range(layers)
        ]
        self.norm = LayerNorm(init / "norm", d)

    def __call__(self, idx: Array, draw: Draw | None = None) -> Tensor:
        t = idx.shape[-1]
        if t > self.block:
            raise ShapeMismatch(f"GPT: {t} positions, but the model was built for {self.block}.")
        x = self.token(idx) + self.position(array_module(idx).arange(t))
        x = self.dropout(x, draw)
        for block in self.blocks:
            x = block(x, draw)
        return linear(self.norm(x), self.token.weight.T)
