"""A collective, drawn: a panel for each step, a row for each rank, a column for each chunk.

A cell has a field for each rank: coloured, with its number, if that rank's part is in the chunk. So
a field is told by its place and its number, too, and not by its colour alone. Arrows are chunks
that moved in this step; they run in lanes to the right of their column.

Letters: p ranks, r a rank, c a chunk, q a rank whose part may be in a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minipar.trace.chunks import Move, Snapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#666666")
DARK = (0, 2, 5, 7)  # colours on which a number is written in white
INK, EMPTY, FAINT = "#222222", "#F1F1F1", "#555555"
WIDE = 5  # panels in a row, at most
HEIGHT, LANE, MARGIN = 0.62, 0.13, 0.1  # of a cell; between lanes; left and right of them


def draw_chunks(
    snapshots: Sequence[Snapshot], figure: Figure | None = None, title: str = ""
) -> Figure:
    """Draw the snapshots, those up to the last addition above, the others below; the figure."""
    from matplotlib.figure import Figure

    p = len(snapshots[0].parts)
    last = max((i for i, s in enumerate(snapshots) if s.added), default=len(snapshots) - 1)
    phases: list[list[Snapshot | None]] = [[*snapshots[: last + 1]]]
    if snapshots[last + 1 :]:
        phases.append([None, *snapshots[last + 1 :]])
    rows = [row[i : i + WIDE] for row in phases for i in range(0, len(row), WIDE)]
    columns = max(map(len, rows))
    pitch = 1 + 2 * MARGIN + LANE * max(1, *(_lanes(s.moves)[1] for s in snapshots))
    if figure is None:
        cell = 0.62 if p <= 4 else 0.4
        width = max(cell * columns * (p * pitch + 0.5), 6.4)
        figure = Figure(figsize=(width, 0.47 * len(rows) * (p + 1.5) + 0.8), dpi=150)
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(0.02, 0.55 / height, 0.995, 1 - (0.6 if title else 0.3) / height,
                           wspace=0.04, hspace=0.22)  # fmt: skip
    if title:
        figure.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold", color=INK)
    for row, panels in zip(rows, figure.subplots(len(rows), columns, squeeze=False)):
        for axes, snapshot in zip(panels, [*row, *[None] * (columns - len(row))]):
            axes.set(xlim=(-0.4, p * pitch), ylim=(p - 0.2, -0.5))
            axes.axis("off")
            if snapshot is not None:
                _panel(axes, snapshot, pitch)
    _legend(figure, p)
    return figure


def _panel(axes: Axes, snapshot: Snapshot, pitch: float) -> None:
    p = len(snapshot.parts)
    axes.set_title(snapshot.title, fontsize=10.5, fontweight="bold", color=INK, pad=3)
    for c in range(p):
        axes.text(c * pitch + 0.5, -0.2, f"chunk {c}", ha="center", fontsize=7, color=FAINT)
    for r in range(p):
        y = r + HEIGHT / 2
        axes.text(-0.1, y, f"rank {r}", ha="right", va="center", fontsize=7.5, rotation=90)
        for c in range(p):
            parts = int(snapshot.parts[r, c])
            _cell(axes, c * pitch, r, parts, p, bool(snapshot.complete[r, c]))
    lanes, _ = _lanes(snapshot.moves)
    for move, lane in zip(snapshot.moves, lanes):
        x = move.chunk * pitch + 1
        _arrow(axes, x, x + MARGIN + LANE * (lane + 0.5), move.src, move.dst)


def _lanes(moves: Sequence[Move]) -> tuple[list[int], int]:
    """A lane for each move, so that those of a column do not touch; and how many there are."""
    taken: list[tuple[Move, int]] = []
    by_move: dict[Move, int] = {}
    for move in sorted(moves, key=lambda m: abs(m.src - m.dst)):
        rows = set(range(min(move[:2]), max(move[:2]) + 1))
        met = {lane for other, lane in taken if other.chunk == move.chunk
               and rows & set(range(min(other[:2]), max(other[:2]) + 1))}  # fmt: skip
        lane = next(i for i in range(len(moves)) if i not in met)
        taken.append((move, lane))
        by_move[move] = lane
    return [by_move[move] for move in moves], max(by_move.values(), default=0) + 1


def _cell(axes: Axes, x: float, y: float, parts: int, p: int, complete: bool) -> None:
    """p fields from left to right, field q filled if rank q's part is in."""
    from matplotlib.patches import Rectangle

    width = 1 / p
    for q in range(p):
        there = parts >> q & 1
        colour = COLOURS[q] if there else EMPTY
        place = (x + q * width, y)
        axes.add_patch(Rectangle(place, width, HEIGHT, facecolor=colour, linewidth=0))
        if there:
            axes.text(
                x + (q + 0.5) * width, y + HEIGHT / 2, str(q), ha="center", va="center",
                fontsize=7.5 if p <= 4 else 5.5, fontweight="bold",
                color="white" if q in DARK else INK,
            )  # fmt: skip
    edge, thick = (INK, 1.9) if complete else ("#BBBBBB", 1.0)
    axes.add_patch(Rectangle((x, y), 1, HEIGHT, fill=False, edgecolor=edge, linewidth=thick))


def _arrow(axes: Axes, right: float, lane: float, src: float, dst: float) -> None:
    """From the right edge of one row's cell along a lane to that of another."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    out, into = src + 0.68 * HEIGHT, dst + 0.32 * HEIGHT
    path = Path([(right + 0.02, out), (lane, out), (lane, into), (right, into)])
    axes.add_patch(
        FancyArrowPatch(
            path=path, arrowstyle="-|>", mutation_scale=6, color=INK, linewidth=1.1, zorder=5
        )
    )


def _legend(figure: Figure, p: int) -> None:
    """A strip along the lower edge."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0.02, 0.04 / height, 0.97, 0.36 / height))
    axes.set(xlim=(-0.1, width / 0.55), ylim=(0.85, -0.2))
    axes.axis("off")
    _cell(axes, 0, 0, min(0b11, (1 << p) - 1), p, False)
    _cell(axes, 5.2, 0, (1 << p) - 1, p, True)
    _arrow(axes, 8.3, 8.5, 0.1, -0.1)
    notes = ((1.15, "parts of these ranks are in it"), (6.35, "complete"))
    for x, note in (*notes, (8.7, "came in this step")):
        axes.text(x, HEIGHT / 2, note, va="center", fontsize=8, color=INK)
