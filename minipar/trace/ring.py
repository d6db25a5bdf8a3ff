"""The ring all-reduce, drawn: which chunk is where, and who has contributed to it, at every step.

The real `collectives.ring_reduce_scatter` and `ring_all_gather` run on the local backend. Rank r
contributes 2^r to every chunk, so a chunk's value tells, as a set of bits, whose parts are in it. A
`Link` that watches what goes through it takes down all chunks before each step.

    chunk 2 on rank 0 is 9 = 2^0 + 2^3:  the parts of ranks 0 and 3 are in it, drawn as  0..3

Letters: r a rank, c a chunk, q a rank whose part may be in a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minipar.array import Array
from minipar.comm import collectives
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#666666")
DARK = (0, 2, 5, 7)  # colours on which a number is written in white
INK, EMPTY = "#222222", "#F1F1F1"


class Snapshot(NamedTuple):
    """All chunks of all ranks after one step."""

    title: str  # "start", "reduce-scatter, step 1", ...
    parts: np.ndarray  # int64 [ranks, chunks]: bit q is set if rank q's part is in the chunk
    arrived: tuple[int, ...]  # for each rank the chunk that came in this step; empty at the start


def ring_snapshots(ranks: int) -> list[Snapshot]:
    """Run the ring all-reduce on so many ranks; the 2p-1 states that it goes through.

    Raises: UsageError above 8 ranks, which nobody could read.
    """
    if not 1 <= ranks <= len(COLOURS):
        raise UsageError(f"the ring is drawn for 1 to {len(COLOURS)} ranks, not {ranks}.")
    seen = np.array(run(_watch, ranks))  # [ranks, states, chunks]
    titles = ["start"]
    for phase in ("reduce-scatter", "all-gather"):
        titles += [f"{phase}, step {step}" for step in range(1, ranks)]
    snapshots = [Snapshot(titles[0], seen[:, 0], ())]
    for title, (before, after) in zip(titles[1:], pairwise(seen.swapaxes(0, 1)), strict=True):
        arrived = tuple(int(c) for c in np.argmax(before != after, axis=1))
        snapshots.append(Snapshot(title, after, arrived))
    return snapshots


def ring_text(snapshots: Sequence[Snapshot]) -> str:
    """The snapshots as text: > has just arrived, [ ] is complete."""
    return "\n\n".join(map(_table, snapshots))


def draw_ring(snapshots: Sequence[Snapshot], figure: Figure | None = None) -> Figure:
    """Draw the snapshots, a panel each, the two phases below each other; returns the figure.

    A row is a rank, a column a chunk. A coloured field with a number is a rank's part in it.
    """
    from matplotlib.figure import Figure

    p = len(snapshots[0].parts)
    columns, rows = max(1, p), 2 if p > 1 else 1
    if figure is None:
        figure = Figure(figsize=(0.85 * columns * p + 0.6, 0.62 * rows * (p + 2)), dpi=150)
    panels = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.03, 0.02, 0.995, 0.94, wspace=0.12, hspace=0.2)
    for axes in panels.flat:
        axes.set(xlim=(-0.15, p), ylim=(p + 0.1, -0.75))
        axes.axis("off")
    for axes, snapshot in zip(panels[0], snapshots[:p]):
        _panel(axes, snapshot)
    if p > 1:
        _legend(panels[1, 0], p)
        for axes, snapshot in zip(panels[1, 1:], snapshots[p:]):
            _panel(axes, snapshot)
    return figure


# -- taking the snapshots ---------------------------------------------------------------------


class _WatchedLink:
    """A link that takes down the chunks of its rank before each exchange."""

    def __init__(self, group: Group, chunks: list[Array]) -> None:
        self.rank, self.size = group.rank, group.size
        self.states: list[list[int]] = []
        self._group, self._chunks = group, chunks

    def take_down(self) -> None:
        self.states.append([int(chunk[0]) for chunk in self._chunks])

    def send(self, array: Array, dst: int) -> None:
        self._group.send(array, dst)

    def recv(self, src: int) -> Array:
        return self._group.recv(src)

    def sendrecv(self, array: Array, dst: int, src: int) -> Array:
        self.take_down()
        return self._group.sendrecv(array, dst, src)

    def add(self, into: Array, array: Array) -> None:
        into += array


def _watch(group: Group) -> list[list[int]]:
    """What one rank's chunks hold before each step and at the end, [states, chunks]."""
    chunks = [np.full(1, 1 << group.rank) for _ in range(group.size)]
    link = _WatchedLink(group, chunks)
    collectives.ring_reduce_scatter(link, chunks)
    collectives.ring_all_gather(link, chunks)
    link.take_down()
    return link.states


# -- text -------------------------------------------------------------------------------------


def _table(snapshot: Snapshot) -> str:
    p = len(snapshot.parts)
    width = max(9, p + 4)
    lines = [snapshot.title, " " * 8 + "".join(f"chunk {c}".rjust(width) for c in range(p))]
    for r in range(p):
        cells = [_cell_text(snapshot, r, c).rjust(width) for c in range(p)]
        lines.append(f"  rank {r}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def _cell_text(snapshot: Snapshot, r: int, c: int) -> str:
    p, parts = len(snapshot.parts), int(snapshot.parts[r, c])
    text = "".join(str(q) if parts >> q & 1 else "." for q in range(p))
    text = f"[{text}]" if parts == (1 << p) - 1 else f" {text} "
    return (">" if snapshot.arrived and snapshot.arrived[r] == c else "") + text


# -- figure -----------------------------------------------------------------------------------


def _panel(axes: Axes, snapshot: Snapshot) -> None:
    p = len(snapshot.parts)
    axes.set_title(snapshot.title, fontsize=11, fontweight="bold", color=INK, pad=6)
    for c in range(p):
        axes.text(c + 0.43, -0.47, f"chunk {c}", ha="center", fontsize=7.5, color="#555555")
    for r in range(p):
        axes.text(-0.1, r + 0.31, f"rank {r}", ha="right", va="center", fontsize=8, rotation=90)
        for c in range(p):
            _cell(axes, r, c, int(snapshot.parts[r, c]), p)
    for r, c in enumerate(snapshot.arrived):
        _arrow(axes, c + 0.43, r)
        if r == 0:  # it left the last row, and comes in at the top
            _arrow(axes, c + 0.43, p)


def _cell(axes: Axes, r: int, c: int, parts: int, p: int) -> None:
    """Cell c of row r: p fields from left to right, field q filled if rank q's part is in."""
    from matplotlib.patches import Rectangle

    complete = parts == (1 << p) - 1
    width, height = 0.86 / p, 0.62
    for q in range(p):
        there = parts >> q & 1
        colour = COLOURS[q] if there else EMPTY
        axes.add_patch(Rectangle((c + q * width, r), width, height, color=colour, linewidth=0))
        if there:
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontweight": "bold"}
            ink = "white" if q in DARK else INK
            x, y = c + (q + 0.5) * width, r + 0.5 * height
            axes.text(x, y, str(q), fontsize=8 if p <= 4 else 6, color=ink, **style)
    edge = {"edgecolor": INK, "linewidth": 2.2} if complete else {"edgecolor": "#BBBBBB"}
    axes.add_patch(Rectangle((c, r), 0.86, height, fill=False, **edge))


def _arrow(axes: Axes, x: float, row: float) -> None:
    """An arrow into the row from the one above it."""
    axes.annotate(
        "",
        (x, row),
        xytext=(x, row - 0.38),
        arrowprops={
            "arrowstyle": "-|>",
            "color": INK,
            "linewidth": 1.6,
            "shrinkA": 0,
            "shrinkB": 0,
        },
        annotation_clip=False,
    )


def _legend(axes: Axes, p: int) -> None:
    _cell(axes, 0, 0, 0b11, p)
    _cell(axes, 1, 0, (1 << p) - 1, p)
    _arrow(axes, 0.43, 2.45)
    notes = ("parts of ranks 0 and 1\nare in this chunk", "complete: all parts are in")
    for row, note in enumerate(
        (*notes, "sent in this step, to the\nnext rank (the last to rank 0)")
    ):
        axes.text(1.05, row + 0.31, note, va="center", fontsize=8.5, color=INK)
