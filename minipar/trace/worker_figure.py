"""Workers in time, drawn: a row for each, dark where it computes and hatched where it waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from minipar.trace.figures import BLUE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAINT, HATCH = "#56B4E9", "#A8A8A8"
HEIGHT = 0.72  # of a row
Spans = Sequence[Sequence[tuple[float, float]]]  # by worker: from when to when it computes


def draw_workers(panels: Mapping[str, Spans], until_s: float) -> Figure:
    """A panel for each title: what its workers do up to until_s.

    Neighbouring computations differ in shade, so that they can be counted. At the right stands how
    many each worker has finished, in the title how many all have.
    """
    figure = new_figure()
    rows = max(len(spans) for spans in panels.values())
    figure.set_size_inches(9, len(panels) * (0.24 * rows + 0.55) + 0.5)
    for axes, (title, spans) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0],
                                    panels.items()):  # fmt: skip
        done = [sum(end <= until_s for _, end in row) for row in spans]
        for i, row in enumerate(spans):
            axes.broken_barh(
                [(0, until_s)], (i - HEIGHT / 2, HEIGHT),
                facecolor="white", edgecolor=HATCH, hatch="/////", linewidth=0,
            )  # fmt: skip
            for n, colour in enumerate((BLUE, FAINT)):
                bars = [(a, min(b, until_s) - a) for a, b in row[n::2] if a < until_s]
                axes.broken_barh(bars, (i - HEIGHT / 2, HEIGHT), facecolor=colour,
                                 edgecolor="white", linewidth=0.6)  # fmt: skip
            axes.annotate(f" {done[i]}", (1, i), xycoords=("axes fraction", "data"), va="center")
        axes.set(xlim=(0, until_s), ylim=(len(spans) - 0.5, -0.5))
        axes.set_yticks(range(len(spans)), [f"worker {i}" for i in range(len(spans))])
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.set_title(f"{title}: {sum(done)} gradients finished", loc="left", fontsize=10.5)
    axes.set_xlabel("seconds; hatched: waits", loc="right")
    return figure
