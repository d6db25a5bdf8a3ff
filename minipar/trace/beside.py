"""Timelines of several runs below each other, with one scale of time: which one is done first?

draw_beside({"naive": trace, "ring": other})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from minipar.errors import UsageError
from minipar.trace.memory_figure import add_held, add_kinds, held_between, lacks
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


def draw_memory_beside(
    traces: Mapping[str, Trace], since: Mapping[str, int] | None = None, rank: int = 0
) -> Figure:
    """What one rank held over time, a panel for each trace by its title, with the most of it.

    since: as in `draw_beside`.  Raises: UsageError if a trace does not tell.
    """
    from matplotlib.figure import Figure

    begins = {title: (since or {}).get(title, 0) for title in traces}
    longest = max(trace.end - begins[title] for title, trace in traces.items())
    tables = {}
    for title, trace in traces.items():
        if reason := lacks(trace):
            raise UsageError(f"{title}: {reason}")
        tables[title] = held_between(trace.ranks[rank], begins[title], trace.end)
    most = {title: int(table[:, 1:].sum(axis=1).max()) for title, table in tables.items()}
    figure = Figure(figsize=(10, 1 + 1.2 * len(traces)), dpi=130, layout="constrained")
    panels = figure.subplots(len(traces), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    scale, unit = unit_of(longest)
    size, name = (2**20, "MB") if max(most.values()) >= 2**20 else (2**10, "KB")
    for axes, (title, table) in zip(panels, tables.items()):
        add_held(axes, table, begins[title], scale, size)
        axes.set_title(f"{title}: at most {most[title] / size:.3g} {name}", loc="left", fontsize=10)
        axes.set(xlim=(0, longest / scale), ylim=(0, 1.08 * max(most.values()) / size), ylabel=name)
    virtual = any(trace.virtual for trace in traces.values())
    panels[-1].set_xlabel(f"{unit}{' of virtual time' if virtual else ''}, rank {rank}")
    add_kinds(figure, list(tables.values()))
    return figure
