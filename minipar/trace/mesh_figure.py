"""A mesh drawn: each replica is the model as a rectangle, cut into stages and into shards.

replica 0    ┌ stage 0 ┬ stage 1 ┐     from left to right the layers, from top to bottom the
             │ rank 0  │ rank 2  │     features of each: a box is what a rank holds
             ├─────────┼─────────┤
             │ rank 1  │ rank 3  │
             └─────────┴─────────┘
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minipar.trace.figures import BLUE, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHADES = ("#CFE6F5", "#FBE3CF", "#D9EFE3", "#EFE0F0")  # of stages
GREEN = "#007A5A"


def draw_mesh(dp: int, pp: int, tp: int) -> Figure:
    """Which part of the model each rank of Mesh(world, dp, pp, tp) holds, and who talks to whom."""
    figure = new_figure()
    figure.set_size_inches(2.2 + dp * (0.8 + 1.1 * pp), 1.6 + 0.85 * tp)
    panels = figure.subplots(1, dp, squeeze=False)[0]
    for replica, axes in enumerate(panels):
        for stage in range(pp):
            for shard in range(tp):
                rank = (replica * pp + stage) * tp + shard
                _box(axes, stage, shard, f"rank {rank}")
        _arrows(axes, pp, tp)
        axes.set(xlim=(-0.05, pp + 0.05), ylim=(tp + 0.05, -0.05))
        axes.set_xticks([s + 0.5 for s in range(pp)], [f"stage {s}" for s in range(pp)])
        axes.set_yticks([t + 0.5 for t in range(tp)], [f"shard {t}" for t in range(tp)])
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
        axes.set_title(f"replica {replica}", fontsize=10)
    axes = panels[0]
    legend = [("tp: in every layer", BLUE)] * (tp > 1)
    legend += [("pp: for every micro-batch", ORANGE)] * (pp > 1)
    legend += [("dp: equal boxes, once in a step", GREEN)] * (dp > 1)
    for n, (text, colour) in enumerate(legend):
        figure.text(0.02 + 0.98 * n / max(3, len(legend)), 0.01, text, color=colour, fontsize=8)
    figure.set_layout_engine("constrained", rect=(0, 0.07, 1, 0.93))
    return figure


def _box(axes: Any, x: int, y: int, text: str) -> None:
    from matplotlib.patches import Rectangle

    shade = SHADES[x % len(SHADES)]
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=shade, edgecolor="white", linewidth=3))
    axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=9)


def _arrows(axes: Any, pp: int, tp: int) -> None:
    """Between neighbours: shards of a stage, and stages of a shard."""
    for x in range(pp):
        for y in range(tp):
            if y + 1 < tp:
                _arrow(axes, (x + 0.28, y + 0.78), (x + 0.28, y + 1.22), BLUE)
            if x + 1 < pp:
                _arrow(axes, (x + 0.84, y + 0.22), (x + 1.16, y + 0.22), ORANGE)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    how = {"arrowstyle": "<->", "color": colour, "linewidth": 1.4}
    axes.annotate("", end, start, arrowprops=how)
