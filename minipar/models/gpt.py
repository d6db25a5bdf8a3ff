"""GPT: a transformer that predicts the next token (Radford et al. 2019).

    token + position ─ dropout ─ block ─ ... ─ block ─ norm ─ · tokenᵀ ─ logits

The blocks (nn/transformer.py) let each position see itself and those before. The output uses the
token table again, transposed (tied weights).

Letters: b batch items, t positions, d features.
"""

from __future__ import annotations

from minipar.array import Array
from minipar.errors import ShapeMismatch
from minipar.nn import ONE_RANK, Kit, Module, Piece, chain
from minipar.nn.transformer import stack_of_blocks
from minipar.random import Draw, Init
from minipar.tensor import Tensor


class GPT(Module):
    """idx: integers [b, t], t <= block   ->   logits [b, t, vocab].

    kit: what it is built with. With a `TensorKit` the logits are a shard, for `output.loss`.
    """

    def __init__(
        self,
        init: Init,
        vocab: int = 256,
        block: int = 64,
        layers: int = 4,
        d: int = 128,
        heads: int = 4,
        dropout: float = 0.0,
        kit: Kit = ONE_RANK,
    ) -> None:
        self.block = block
        self.token = kit.table(init / "token", vocab, d)
        self.position = kit.positions(init / "position", block, d)
        self.dropout = kit.dropout(init / "dropout", dropout)
        self.blocks = stack_of_blocks(init / "blocks", layers, d, heads, dropout, True, kit)
        self.norm = kit.norm(init / "norm", d)
        self.output = kit.output(vocab)

    def __call__(self, idx: Array, draw: Draw | None = None) -> Tensor:
        return chain(self.pieces(), idx, draw)

    def pieces(self) -> list[Module]:
        """Embedding, blocks, head: what a pipeline cuts between."""
        embedding = Piece(self.embed, self.token, self.position, self.dropout)
        return [embedding, *self.blocks, Piece(self.logits, self.norm, self.token)]

    def embed(self, idx: Array, draw: Draw | None = None) -> Tensor:
        self._check_length(idx.shape[-1])
        return self.dropout(self.position(self.token(idx)), draw)

    def embed_from(self, idx: Array, first: int) -> Tensor:
        """`embed` in evaluation, of the positions first .. first + t of a text."""
        self._check_length(first + idx.shape[-1])
        return self.position.beginning(self.token(idx), first)

    def logits(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        return self.token.logits(self.norm(x))

    def _check_length(self, t: int) -> None:
        if t > self.block:
            raise ShapeMismatch(f"GPT: {t} positions, but the model was built for {self.block}.")
