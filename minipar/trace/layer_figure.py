"""The layers of a model in time: down the stairs forward, and up again backward.

    Net      [           forward           ]
    first    [    ]                                                [  backward  ]
    second         [     ]                          [  backward  ]
    last                  [      ]   [  backward  ]

A row is a module, by its name in the model; those inside another stand below it, further in. What
belongs to no module, such as the loss, has a row of its own. It is the picture of one rank, the
first that has modules in the window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minipar.errors import TraceError
from minipar.spans import Span
from minipar.trace.timeline_figure import KINDS, unit_of
from minipar.trace.trace_file import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASSES = ("forward", "recompute", "backward")
MOST = 60  # rows; what lies deepest is left out beyond that
OUTSIDE = "no module"


def lacks(trace: Trace) -> str:
    """Why there is nothing to draw; empty if there is."""
    if any(s.kind in PASSES and s.depth for rank in trace.ranks for s in rank.spans):
        return ""
    return "no module of a model has computed anything in this trace."


def draw_layers(trace: Trace, begin: int, end: int, title: str = "") -> Figure:
    """The modules of a rank between begin and end, in ns of the trace.

    Raises: TraceError if none of them is in the window.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rank, spans = _modules(trace, begin, end)
    depth = rows_of(spans)
    figure = Figure(figsize=(10, 1.3 + 0.28 * len(depth)), dpi=130, layout="constrained")
    axes, (scale, unit) = figure.subplots(), unit_of(end - begin)
    for row, name in enumerate(depth):
        for kind in PASSES:
            boxes = [
                ((s.begin - begin) / scale, (s.end - s.begin) / scale)
                for s in spans
                if (s.name or OUTSIDE, s.kind) == (name, kind)
            ]
            axes.broken_barh(boxes, (row + 0.1, 0.8), color=KINDS[kind], linewidth=0.4)
    axes.set(xlim=(0, (end - begin) / scale), ylim=(len(depth), 0))
    labels = ["   " * deep + name for name, deep in depth.items()]
    axes.set_yticks([n + 0.5 for n in range(len(depth))], labels, ha="left")
    axes.tick_params(axis="y", length=0, pad=8 + 5.6 * max(map(len, labels)))
    axes.set_xlabel(f"{unit}{' of virtual time' if trace.virtual else ''}, rank {rank}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_title(title, loc="left", fontsize=11)
    kinds = [kind for kind in PASSES if any(s.kind == kind for s in spans)]
    marks = [Patch(color=KINDS[kind], label=kind) for kind in kinds]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    return figure


def _modules(trace: Trace, begin: int, end: int) -> tuple[int, list[Span]]:
    """The first rank with modules in the window, and their passes."""
    for rank in trace.ranks:
        spans = [s for s in rank.spans if s.kind in PASSES and s.end > begin and s.begin < end]
        if any(s.kind == "forward" and s.name for s in spans):
            return rank.rank, spans
    raise TraceError("no module has computed anything in this window of the trace.")


def rows_of(spans: list[Span]) -> dict[str, int]:
    """The modules by when they were first called, and how many others each of them lies in."""
    depth: dict[str, int] = {}
    for span in sorted(spans, key=lambda s: (s.begin, s.depth)):
        if span.kind == "forward":
            depth.setdefault(span.name or OUTSIDE, span.depth)
    for span in spans:
        depth.setdefault(span.name or OUTSIDE, 0)
    while len(depth) > MOST and (deepest := max(depth.values())):
        depth = {name: deep for name, deep in depth.items() if deep < deepest}
    return depth
