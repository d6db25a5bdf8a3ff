"""The figures of together.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from blocks.together import GB, LAYOUTS, planned

from minipar.trace.figures import BLUE, ORANGE, new_figure
from minipar.trace.mesh_figure import draw_mesh

COLOURS = {
    "weights": BLUE,
    "gradients": "#56B4E9",
    "optimizer": "#009E73",
    "activations": ORANGE,
}
SENT = {"dp": "#CC79A7", "tp": "#555555", "pp": "#E69F00"}


def mesh(path: Path) -> None:
    draw_mesh(dp=2, pp=2, tp=2).savefig(path)


def layouts(path: Path) -> None:
    """Memory of the rank that needs most, and what a rank sends, for each layout of 8 ranks."""
    names = [name for name in LAYOUTS if name != "1 rank"]
    figure = new_figure()
    figure.set_size_inches(9.5, 0.32 * len(names) + 1.4)
    held, sent = figure.subplots(1, 2, sharey=True)
    for row, name in enumerate(names):
        _, needs, costs = planned(LAYOUTS[name])
        most = max(needs, key=lambda need: need.step)
        left = 0.0
        for what, colour in COLOURS.items():
            width = getattr(most, what) / GB
            held.barh(row, width, left=left, color=colour, height=0.7)
            left += width
        left = 0.0
        for axis, colour in SENT.items():
            width = costs.sent[axis].nbytes / GB if axis in costs.sent else 0.0
            sent.barh(row, width, left=left, color=colour, height=0.7)
            left += width
    held.set_yticks(range(len(names)), names)
    held.invert_yaxis()
    held.set_title("GB held by a rank", fontsize=10)
    sent.set_title("GB sent by a rank in a step", fontsize=10)
    for axes, colours in ((held, COLOURS), (sent, SENT)):
        bars = [axes.barh(0, 0, color=colour) for colour in colours.values()]
        axes.legend(bars, list(colours), frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0, labelsize=8)
    figure.savefig(path)


MADE: dict[str, Callable[[Path], None]] = {"mesh.png": mesh, "layouts.png": layouts}
