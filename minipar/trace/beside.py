"""Timelines of several runs below each other, with one scale of time: which one is done first?

draw_beside({"naive": trace, "ring": other})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from minipar.trace.timeline_figure import add_legend, add_timeline, unit_of
from minipar.trace.trace_file import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_beside(traces: Mapping[str, Trace], since: Mapping[str, int] | None = None) -> Figure:
    """A panel for each trace by its title, which also says when its last rank was done.

    since: by title, the moment of the trace with which its panel begins; 0 for the others.
    """
    from matplotlib.figure import Figure

    begins = {title: (since or {}).get(title, 0) for title in traces}
    longest = max(trace.end - begins[title] for title, trace in traces.items())
    ranks = [len(trace.ranks) for trace in traces.values()]
    size = (11, 1.1 + sum(0.5 + 0.42 * n for n in ranks))
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    panels = figure.subplots(len(traces), 1, squeeze=False, height_ratios=ranks)[:, 0]
    scale, unit = unit_of(longest)
    for axes, (title, trace) in zip(panels, traces.items()):
        length = (trace.end - begins[title]) / scale
        heading = f"{title}: {f'{length:.0f}' if length >= 100 else f'{length:.3g}'} {unit}"
        add_timeline(axes, trace, begins[title], trace.end, heading, longest)
        axes.axvline(length, color="#444444", linewidth=1.2)
        axes.label_outer()
    add_legend(figure, [(trace, begins[title], trace.end) for title, trace in traces.items()])
    return figure
