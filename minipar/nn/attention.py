"""Self-attention as a layer (Vaswani et al. 2017).

Letters: b batch items, t positions, d features, h heads of c = d / h channels.
"""

from __future__ import annotations

from minipar.errors import UsageError
from minipar.nn.cache import KeyValues
from minipar.nn.layers import ONE_RANK, STD, Kit
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
        kit: Kit = ONE_RANK,
    ) -> None:
        self.c, self.causal = _channels(d, heads), causal
        self.qkv = kit.qkv(init / "qkv", d, heads)
        self.out = kit.row(init / "out", d, d, std=out_std)
        self.dropout = kit.dropout(init / "dropout", dropout)

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        qkv = self.qkv(x)
        b, t, _ = qkv.shape
        qkv = qkv.reshape(b, t, 3, -1, self.c)  # of all heads, or of those of this rank
        if self.causal:
            mixed = causal_attention(qkv)
        else:
            q, k, v = (qkv[:, :, n] for n in range(3))
            mixed = scaled_dot_product_attention(q, k, v)
        return self.dropout(self.out(mixed.reshape(b, t, -1)), draw)

    def memory(self, b: int, block: int) -> KeyValues:
        """An empty cache for the heads that are here.  Raises: UsageError if it is not causal."""
        if not self.causal:
            raise UsageError("no cache for attention that is not causal: it looks at what comes.")
        w = self.qkv.weight
        return KeyValues(b, w.shape[1] // (3 * self.c), block, self.c, w.data)

    def extend(self, x: Tensor, past: KeyValues) -> Tensor:
        """The call, for t positions that come after those in `past`, and are added to it.

        Evaluation only: what is in the cache has no graph.
        """
        qkv = self.qkv(x)
        b, t, _ = qkv.shape
        q, k, v = (qkv.reshape(b, t, 3, -1, self.c)[:, :, n] for n in range(3))
        keys, values = map(Tensor, past.extend(k.data, v.data))
        mixed = scaled_dot_product_attention(q, keys, values, causal=t > 1)  # one sees them all
        return self.out(mixed.reshape(b, t, -1))


class GroupedSelfAttention(Module):
    """The same with h heads of queries, but only g of keys and values (Ainslie et al. 2023).

    Each group of h / g heads looks at the same keys.
    """

    def __init__(
        self,
        init: Init,
        d: int,
        heads: int,
        groups: int,
        causal: bool = True,
        kit: Kit = ONE_RANK,
    ) -> None:
        if heads % groups:
            raise UsageError(f"{heads} heads cannot be cut into {groups} equal groups.")
        _channels(d, heads)
        self.causal = causal
        self.qkv = kit.grouped(init / "qkv", d, heads, groups)
        self.out = kit.row(init / "out", d, d)

    def __call__(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x)
        b, t, _, _ = q.shape
        mixed = scaled_dot_product_attention(q, k, v, self.causal)
        return self.out(mixed.reshape(b, t, -1))


def _channels(d: int, heads: int) -> int:
    if d % heads:
        raise UsageError(f"{d} features cannot be cut into {heads} equal heads.")
    return d // heads
