"""Timelines of several runs below each other, with one scale of time: which one is done first?

draw_beside({"naive": trace, "ring": other})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from minipar.trace.timeline_figure import add_legend, add_timeline
from minipar.trace.trace_file import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_beside(traces: Mapping[str, Trace]) -> Figure:
    """A panel for each trace by its title, which also says when its last rank was done."""
    from matplotlib.figure import Figure

    until = max(trace.end for trace in traces.values())
    ranks = [len(trace.ranks) for trace in traces.values()]
    size = (11, 1.1 + sum(0.5 + 0.42 * n for n in ranks))
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    panels = figure.subplots(len(traces), 1, squeeze=False, height_ratios=ranks)[:, 0]
    for axes, (title, trace) in zip(panels, traces.items()):
        add_timeline(axes, trace, 0, trace.end, f"{title}: {trace.end / 1e6:.4g} ms")
        axes.axvline(trace.end / 1e6, color="#444444", linewidth=1.2)
        axes.set_xlim(0, until / 1e6)
        axes.label_outer()
    add_legend(figure, list(traces.values()), 0, until)
    return figure
