"""The block of which transformers are made, whatever they read.

    x = x + attention(norm1(x))          positions exchange what they know
    x = x + down(gelu(up(norm2(x))))     each position thinks about it

The norms stand before the branches (pre-LN), so that the sum runs through unchanged.

Letters: b batch items, t positions, d features.
"""

from __future__ import annotations

from minipar.nn.attention import SelfAttention
from minipar.nn.cache import KeyValues
from minipar.nn.layers import ONE_RANK, STD, Kit
from minipar.nn.module import Module
from minipar.random import Draw, Init
from minipar.tensor import Tensor


class FeedForward(Module):
    """The same two-layer network at every position.   x: [b, t, d] -> [b, t, d]."""

    def __init__(
        self, init: Init, d: int, dropout: float, out_std: float, kit: Kit = ONE_RANK
    ) -> None:
        self.up = kit.column(init / "up", d, 4 * d)
        self.down = kit.row(init / "down", 4 * d, d, std=out_std)
        self.dropout = kit.dropout(init / "dropout", dropout)

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        return self.dropout(self.down(self.up.gelu(x)), draw)


class Block(Module):
    """Attention, then the feed-forward network, each on a branch.   x: [b, t, d] -> [b, t, d]."""

    def __init__(
        self,
        init: Init,
        d: int,
        heads: int,
        dropout: float,
        out_std: float,
        causal: bool,
        kit: Kit = ONE_RANK,
    ) -> None:
        self.norm1 = kit.norm(init / "norm1", d)
        self.attention = SelfAttention(init / "attention", d, heads, dropout, out_std, causal, kit)
        self.norm2 = kit.norm(init / "norm2", d)
        self.mlp = FeedForward(init / "mlp", d, dropout, out_std, kit)

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), draw)
        return x + self.mlp(self.norm2(x), draw)

    def extend(self, x: Tensor, past: KeyValues) -> Tensor:
        """The call, for positions that come after those in `past` (see `SelfAttention.extend`)."""
        x = x + self.attention.extend(self.norm1(x), past)
        return x + self.mlp(self.norm2(x))


def stack_of_blocks(
    init: Init,
    layers: int,
    d: int,
    heads: int,
    dropout: float,
    causal: bool,
    kit: Kit = ONE_RANK,
) -> list[Block]:
    """Blocks named by their number, whose 2·layers branches add up to a variance like one."""
    out_std = STD / (2 * layers) ** 0.5
    return [Block(init / n, d, heads, dropout, out_std, causal, kit) for n in range(layers)]
