"""ViT: a transformer that reads an image as a sequence of patches (Dosovitskiy et al. 2021).

    ┌──┬──┬──┐      p·p·c numbers                              mean over
    │ 0│ 1│ 2│      of each patch
    ├──┼──┼──┤  ─►  0 1 2 3 4 5  ─ patch ─ + position ─ block ─ ... ─ norm ─ mean ─ head ─ logits
    │ 3│ 4│ 5│
    └──┴──┴──┘

The blocks are those of GPT (nn/transformer.py), except that every patch sees all others. What it
knows of an image being flat is in the learned positions alone: without them a puzzle and its
solution are the same to it.

The head reads the mean of all positions and not a class token, a position of its own that belongs
to no patch. The paper (appendix D.3) finds both equally good; the mean needs no parameter, and
leaves the number of positions as it is, so that ranks can share them out evenly.

Letters: b batch items, h·w pixels of c channels, p pixels along a patch, t patches, d features.
"""

from __future__ import annotations

from minipar.array import Array
from minipar.errors import ShapeMismatch, UsageError
from minipar.nn import ONE_RANK, Kit, Linear, Module, Output, Piece, chain
from minipar.nn.transformer import stack_of_blocks
from minipar.random import Draw, Init
from minipar.tensor import Tensor, shown


class ViT(Module):
    """x: images [b, h, w, c]   ->   logits [b, classes].   image: (h, w, c), divisible by patch."""

    def __init__(
        self,
        init: Init,
        image: tuple[int, int, int] = (28, 28, 1),
        patch: int = 7,
        classes: int = 10,
        layers: int = 4,
        d: int = 128,
        heads: int = 4,
        dropout: float = 0.0,
        kit: Kit = ONE_RANK,
    ) -> None:
        h, w, c = image
        if h % patch or w % patch:
            raise UsageError(f"ViT: an image of {h}·{w} cannot be cut into patches of {patch}.")
        self.image, self.side = (h, w, c), patch
        i, t = patch * patch * c, (h // patch) * (w // patch)
        self.patch = kit.entry(init / "patch", i, d, std=i**-0.5)
        self.position = kit.positions(init / "position", t, d, std=1.0)  # as large as what is there
        self.dropout = kit.dropout(init / "dropout", dropout)
        self.blocks = stack_of_blocks(init / "blocks", layers, d, heads, dropout, False, kit)
        self.norm = kit.norm(init / "norm", d)
        self.mean = kit.mean
        self.head = Linear(init / "head", d, classes, std=d**-0.5)
        self.output = Output()  # a few classes, on every rank

    def __call__(self, x: Tensor | Array, draw: Draw | None = None) -> Tensor:
        return chain(self.pieces(), x, draw)

    def pieces(self) -> list[Module]:
        """Embedding, blocks, head: what a pipeline cuts between."""
        embedding = Piece(self.embed, self.patch, self.position, self.dropout)
        return [embedding, *self.blocks, Piece(self.logits, self.norm, self.head)]

    def embed(self, x: Tensor | Array, draw: Draw | None = None) -> Tensor:
        x = x if isinstance(x, Tensor) else Tensor(x)
        if x.shape[1:] != self.image:
            raise ShapeMismatch(
                f"ViT: the images are {shown(x)}, the model was built for "
                f"[b, {', '.join(map(str, self.image))}]. Channels come last here."
            )
        return self.dropout(self.position(self.patch(patches(x, self.side))), draw)

    def logits(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        return self.head(self.mean(self.norm(x)))


def patches(x: Tensor, p: int) -> Tensor:
    """The patches of each image, row by row.   [b, h, w, c] -> [b, t, p·p·c]."""
    b, h, w, c = x.shape
    grid = x.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(b, (h // p) * (w // p), p * p * c)
