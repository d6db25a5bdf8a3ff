"""A neural language model without attention (Bengio et al. 2003).

The last `context` bytes are embedded, and their vectors, one after another, go through a plain
network of tanh layers:

    ... t h e _ c a  ->  [e(h) e(e) e(_) e(c) e(a)]  ->  tanh  ->  ...  ->  logits of the next

Letters: b batch items, t positions, d features of a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from minipar.array import Array, array_module
from minipar.errors import UsageError
from minipar.nn import ONE_RANK, Dropout, Embedding, Kit, Linear, Module, Piece, chain
from minipar.ops import tanh
from minipar.random import Draw, Init
from minipar.tensor import Tensor


class MLP(Module):
    """idx: integers [b, t]   ->   logits [b, t, vocab], each from the last `context` of idx.

    Before the beginning of a window stand zero bytes. `block` is how much of a text it looks at
    when it generates: the context.
    """

    def __init__(
        self,
        init: Init,
        vocab: int = 256,
        context: int = 16,
        d: int = 32,
        hidden: Sequence[int] = (256,),
        dropout: float = 0.0,
        kit: Kit = ONE_RANK,
    ) -> None:
        if kit.sequence:
            raise UsageError("MLP: its layers see several positions at once; none can be alone.")
        self.block = context
        self.token = Embedding(init / "token", vocab, d, std=1.0)
        sizes = [context * d, *hidden]
        self.layers = [
            _in_turn(kit, n, len(hidden))(init / "layers" / n, i, o, std=i**-0.5)
            for n, (i, o) in enumerate(pairwise(sizes))
        ]
        self.dropout = Dropout(init / "dropout", dropout)
        self.out = kit.classes(init / "out", sizes[-1], vocab)
        self.output = kit.output(vocab)

    def __call__(self, idx: Array, draw: Draw | None = None) -> Tensor:
        return chain(self.pieces(), idx, draw)

    def pieces(self) -> list[Module]:
        """Embedding, layers, output: what a pipeline cuts between."""
        layers = [Piece(partial(_layer, layer), layer) for layer in self.layers]
        return [Piece(self.embed, self.token), *layers, Piece(self.logits, self.dropout, self.out)]

    def embed(self, idx: Array, draw: Draw | None = None) -> Tensor:
        b, t = idx.shape
        return self.token(windows(idx, self.block)).reshape(b, t, -1)

    def logits(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        return self.out(self.dropout(x, draw))


def _layer(linear: Linear, x: Tensor, draw: Draw | None) -> Tensor:
    return tanh(linear(x))


def _in_turn(kit: Kit, n: int, layers: int) -> Callable[..., Linear]:
    """Column, row, column, row; a last one without its row has its outputs gathered."""
    if n % 2:
        return kit.row
    return kit.column if n + 1 < layers else kit.gathered


def windows(idx: Array, context: int) -> Array:
    """For each position its last `context` tokens, itself included.   [b, t] -> [b, t, context]."""
    xp = array_module(idx)
    b, t = idx.shape
    padded = xp.concatenate([xp.zeros((b, context - 1), idx.dtype), idx], axis=1)
    return padded[:, xp.arange(t)[:, None] + xp.arange(context)]
