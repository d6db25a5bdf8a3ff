"""Pictures of the key/value cache.

    draw_filling   which positions are computed for each token, without a cache and with one
    draw_holders   which rank keeps the keys and values of which heads of which blocks

Each gives a matplotlib figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from minipar.array import Array
from minipar.models.reader import Pick, write

NOW, KEPT, EMPTY, INK = "#E69F00", "#56B4E9", "#FFFFFF", "#333333"
RANKS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7")  # distinct for the colour-blind, too


class Reading(NamedTuple):
    """One call of a reader: what it has now, of which the last `new` positions are computed."""

    letters: str
    new: int


class Follower:
    """A reader without a model, which finds that always the next letter of a text comes next."""

    def __init__(self, text: bytes, block: int) -> None:
        self.text, self.block = text, block
        self.seen: list[int] = []
        self.readings: list[Reading] = []
        self.done = 0

    def forget(self) -> None:
        self.seen.clear()

    def next(self, ids: Array, pick: Pick) -> int:
        new = ids[0].tolist()
        self.seen += new
        self.done += 1
        self.readings.append(Reading(bytes(self.seen).decode(), len(new)))
        return self.text[self.done - 1]


def readings(prompt: bytes, rest: bytes, block: int) -> list[Reading]:
    """What `write` has its reader do, if it writes `rest` after the prompt."""
    follower = Follower(rest, block)
    assert bytes(write(follower, prompt, len(rest))) == rest
    return follower.readings


def draw_filling(prompt: bytes = b"to be ", rest: bytes = b"or not to be", block: int = 12) -> Any:
    """A line for each token that is written, from the top: what is read for it."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lines = readings(prompt, rest, block)
    figure = Figure(figsize=(9.6, 0.32 * len(lines) + 1.3), dpi=150, layout="constrained")
    for axes, title, cached in zip(
        figure.subplots(1, 2), ("without a cache", "with a cache"), (False, True)
    ):
        for y, (letters, new) in enumerate(lines):
            computed = new if cached else len(letters)
            _line(axes, y, letters, len(letters) - computed, block)
            axes.text(block + 0.35, y + 0.5, "→ " + _visible(chr(rest[y])), va="center", color=INK)
            axes.text(-0.35, y + 0.5, f"{computed}", va="center", ha="right", color=INK)
        axes.set(xlim=(-1.4, block + 2.2), ylim=(len(lines) + 0.1, -1.5), aspect="equal")
        axes.text(-0.35, -0.3, "rows", ha="right", fontsize=9, color=INK)
        axes.text(0, -0.3, f"places 0 .. {block - 1} of the block", fontsize=9, color=INK)
        axes.set_title(title, fontsize=12)
        axes.axis("off")
    kinds = (("computed now", NOW), ("remembered", KEPT), ("not yet", EMPTY))
    patches = [Patch(facecolor=colour, edgecolor=INK, label=name) for name, colour in kinds]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_holders(holders: Mapping[tuple[int, int], int], blocks: int, heads: int) -> Any:
    """The cache of the whole model in the colours of the ranks.

    holders: (block, head) -> the rank that has its keys and values.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    figure = Figure(figsize=(7.2, 0.62 * blocks + 1.3), dpi=150, layout="constrained")
    axes = figure.subplots()
    for (block, head), rank in holders.items():
        for column, name in enumerate("kv"):
            place = (column * (heads + 0.6) + head, block)
            colour = RANKS[rank % len(RANKS)]
            axes.add_patch(Rectangle(place, 1, 0.8, facecolor=colour, edgecolor=INK))
            axes.text(place[0] + 0.5, block + 0.4, f"{name}{head}", ha="center", va="center")
    for block in range(blocks):
        axes.text(-0.25, block + 0.4, f"block {block}", ha="right", va="center", color=INK)
    for column, name in enumerate(("keys", "values")):
        x = column * (heads + 0.6) + heads / 2
        axes.text(x, -0.25, f"{name} of the heads", ha="center", color=INK)
    axes.set(xlim=(-1.6, 2 * heads + 0.8), ylim=(blocks, -0.7), aspect="equal")
    axes.axis("off")
    patches = [
        Patch(facecolor=RANKS[r % len(RANKS)], edgecolor=INK, label=f"rank {r}")
        for r in sorted(set(holders.values()))
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    return figure


def _line(axes: Any, y: int, letters: str, kept: int, block: int) -> None:
    from matplotlib.patches import Rectangle

    for x in range(block):
        colour = KEPT if x < kept else NOW if x < len(letters) else EMPTY
        axes.add_patch(Rectangle((x, y), 1, 0.86, facecolor=colour, edgecolor=INK, linewidth=0.8))
        letter = _visible(letters[x]) if x < len(letters) else ""
        axes.text(x + 0.5, y + 0.45, letter, ha="center", va="center", fontsize=9)


def _visible(letter: str) -> str:
    return "␣" if letter == " " else letter
