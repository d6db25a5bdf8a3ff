"""Self-attention as a layer (Vaswani et al. 2017).

Letters: b batch items, t positions, d features, h heads of c = d / h channels.
"""

from __future__ import annotations

from minipar.errors import UsageError
from minipar.nn.layers import STD, Dropout, Linear
from minipar.nn.module import Module
from minipar.ops import causal_attention, scaled_dot_product_attention
from minipar.random import Draw, Init
from minipar.tensor import Tensor


class SelfAttention(Module):
    """x: [b, t, d] -> [b, t, d]; each position sees all, or (causal) itself and those before.

    One product gives q, k and v of all heads. Dropout falls on the output, not on the attention
    weights. out_std: of the output projection's initial weights.
    """

    def __init__(
        self,
        init: Init,
        d: int,
        heads: int,
        dropout: float = 0.0,
        out_std: float = STD,
        causal: bool = True,
    ) -> None:
        if d % heads:
            raise UsageError(f"{d} features cannot be cut into {heads} equal heads.")
        self.heads, self.causal = heads, causal
        self.qkv = Linear(init / "qkv", d, 3 * d)
        self.out = Linear(init / "out", d, d, std=out_std)
        self.dropout = Dropout(init / "dropout", dropout)

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        b, t, d = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads)
        if self.causal:
            mixed = causal_attention(qkv)
        else:
            q, k, v = (qkv[:, :, n] for n in range(3))
            mixed = scaled_dot_product_attention(q, k, v)
        return self.dropout(self.out(mixed.reshape(b, t, d)), draw)
