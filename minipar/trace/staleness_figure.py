"""How stale the pushes were that parameter servers applied, as a histogram."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from minipar.trace.figures import BLUE, ORANGE, new_figure


def draw_staleness(
    counts: Mapping[int, int], path: Path, title: str = "", bound: int | None = None
) -> None:
    """Bars: how many pushes had not seen so many updates.

    counts: staleness -> pushes.  bound: the largest that the rule allows, drawn as a line.
    """
    figure = new_figure()
    axes = figure.subplots()
    total = sum(counts.values()) or 1
    last = max([*counts, bound or 0], default=0)
    places = range(last + 1)
    heights = [100 * counts.get(n, 0) / total for n in places]
    bars = axes.bar(places, heights, color=BLUE, width=0.8)
    if last <= 12:
        axes.bar_label(bars, [f"{h:.0f} %" if h else "" for h in heights], padding=2)
        axes.set_xticks(places)
    if bound is not None:
        axes.axvline(bound + 0.5, color=ORANGE, linestyle="--", label=f"the bound: {bound}")
        axes.legend(frameon=False)
    mean = sum(n * k for n, k in counts.items()) / total
    axes.set(
        xlabel=f"updates that its worker had not seen (mean {mean:.2f})",
        ylabel="of the pushes (%)",
        title=title,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    figure.savefig(path)
