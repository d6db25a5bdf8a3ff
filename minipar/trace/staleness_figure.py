"""How stale the pushes were that parameter servers applied, as a histogram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from minipar.trace.figures import new_figure
from minipar.trace.served import COLOURS, most_stale, pushes, served
from minipar.trace.served import lacks as lacks
from minipar.trace.trace_file import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERED = 16  # bars that have their number written above


def draw_staleness_of(trace: Trace, begin: int, end: int, title: str = "") -> Figure:
    """Of the pushes that the first server applied in the window, a colour for each worker.

    Raises: UsageError without servers.
    """
    found, known = pushes(trace, begin, end), served(trace)
    parts = {f"worker {worker}": found.get(worker, Counter()) for worker in range(known.workers)}
    return draw_staleness(parts, title, most_stale(known.bound, known.workers))


def draw_staleness(
    parts: Mapping[str, Mapping[int, int]], title: str = "", bound: int | None = None
) -> Figure:
    """Bars: what share of all pushes had not seen so many updates.

    parts: by name, staleness -> pushes; they lie on each other.
    bound: the largest that the rule allows.
    """
    figure = new_figure()
    axes = figure.subplots()
    total = sum(sum(counts.values()) for counts in parts.values()) or 1
    last = max((n for counts in parts.values() for n in counts), default=0)
    places = range(last + 1)
    feet = [0.0 for _ in places]
    for i, (name, counts) in enumerate(parts.items()):
        heights = [100 * counts.get(n, 0) / total for n in places]
        colour = COLOURS[i % len(COLOURS)]
        axes.bar(places, heights, bottom=feet, color=colour, width=0.8, label=name)
        feet = [foot + height for foot, height in zip(feet, heights)]
    if last <= NUMBERED:
        for n, height in zip(places, feet):
            if height:
                text = f"{height:.0f} %" if height >= 1 else "<1 %"
                axes.text(n, height, text, ha="center", va="bottom", fontsize=9)
        axes.set_xticks(places)
    if len(parts) > 1:
        axes.legend(frameon=False, ncols=-(-len(parts) // len(COLOURS)))
    mean = sum(n * k for counts in parts.values() for n, k in counts.items()) / total
    allowed = "" if bound is None else f"; the rule allows {bound}"
    axes.set(
        xlabel=f"updates that its worker had not seen (mean {mean:.2f}, most {last}{allowed})",
        ylabel="of the pushes (%)",
        title=title,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    return figure
