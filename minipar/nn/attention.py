"""Causal self-attention as a layer (Vaswani et al. 2017).

Letters: b batch items, t positions, d features, h heads of c = d / h channels.
"""

from __future__ import annotations

from minipar.errors import UsageError
from minipar.nn.layers import STD, Dropout, Linear
from minipar.nn.module import Module
from minipar.ops import causal_attention
from minipar.random import Draw, Init
from minipar.tensor import Tensor


class CausalSelfAttention(Module):
    """x: [b, t, d] -> [b, t, d]; position t sees the positions 0..t.

    One product gives q, k and v of all heads. Dropout falls on the output, not on the attention
    weights. out_std: of the output projection's initial weights.
    """

    def __init__(
        self, init: Init, d: int, heads: int, dropout: float = 0.0, out_std: float = STD
    ) -> None:
        if d % heads:
            raise UsageError(f"{d} features cannot be cut into {heads} equal heads.")
        self.heads = heads
        self.qkv = Linear(init / "qkv", d, 3 * d)
        self.out = Linear(init / "out", d, d, std=out_std)
        self.dropout = Dropout(init / "dropout", dropout)

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        b, t, d = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads)
        mixed = causal_attention(qkv).reshape(b, t, d)
        return self.dropout(self.out(mixed), draw)
