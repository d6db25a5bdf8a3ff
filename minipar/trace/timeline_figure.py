"""The timeline of a run: what every rank did, when, in distinct colours.

    rank 0   [ F0 ][ F1 ]    [ B0 ][ B1 ][opt]      computation, by its kind
                  [ tp ] |      [ dp ]               calls by axis, single messages; waiting is grey

The colours differ also for the colour-blind (Okabe & Ito) and in lightness, for print; waiting is
hatched. On the right: how much of the time went into computing, moving bytes, and waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from minipar.events import Event
from minipar.spans import Span
from minipar.trace.totals import Intervals, common, computing, merged, shares, under_way, waiting
from minipar.trace.trace_file import RankTrace, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = MappingProxyType(
    {
        "forward": "#56B4E9",
        "backward": "#0072B2",
        "recompute": "#CC79A7",
        "optimizer": "#009E73",
        "data": "#B3B3B3",
        "checkpoint": "#8C510A",
        "evaluate": "#7570B3",
    }
)
AXES = MappingProxyType(
    {"dp": "#D55E00", "pp": "#F0E442", "tp": "#E69F00", "world": "#444444", "other": "#888888"}
)
OTHER = "#CFCFCF"
WAIT, EDGE = "#E4E4E4", "#9A9A9A"
LOST = "#CC3311"
BOX = MappingProxyType(
    {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "boxstyle": "round,pad=0.15"}
)
COMPUTE_AT, MOVE_AT = (0.42, 0.46), (0.0, 0.34)  # bottom and height in the band of a rank
PALE = 0.35  # a span where it does not compute, but waits or moves bytes
MANY = 500  # boxes of one kind on a rank
MARK = 300  # a message of its own is a mark, so many times as narrow as the window
READABLE = 0.02  # of the width: what is shorter gets no label


def draw_timeline(trace: Trace, begin: int, end: int, title: str = "") -> Figure:
    """The window from begin to end, in ns of the trace, as a figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.7 + 0.62 * len(trace.ranks)), dpi=130, layout="constrained")
    add_timeline(figure.subplots(), trace, begin, end, title)
    add_legend(figure, [(trace, begin, end)])
    return figure


def add_timeline(
    axes: Axes, trace: Trace, begin: int, end: int, title: str = "", length: int = 0
) -> None:
    """The same in axes that are there.  length: of the axis, if it is to be longer."""
    ranks, length = trace.ranks, length or end - begin
    scale, unit = unit_of(length)
    for rank in ranks:
        _draw_rank(axes, trace, rank, begin, end, scale)
    axes.set(xlim=(0, length / scale), ylim=(len(ranks), -0.05))
    axes.set_yticks([n + 0.5 for n in range(len(ranks))], [f"rank {r.rank}" for r in ranks])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{unit}{' of virtual time' if trace.virtual else ''}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    if title:
        axes.set_title(title, loc="left", fontsize=11)


def unit_of(length: int) -> tuple[float, str]:
    """Nanoseconds in a unit, and its name, for an axis of so many nanoseconds."""
    return (1e6, "ms") if length < 20e9 else (1e9, "s")


def _draw_rank(
    axes: Axes, trace: Trace, rank: RankTrace, begin: int, end: int, scale: float
) -> None:
    top, length = rank.rank + 0.04, end - begin

    def bars(boxes: Iterable[tuple[int, int]], where: tuple[float, float], **style: Any) -> None:
        inside = [(max(a, begin), min(b, end)) for a, b in boxes if b > begin and a < end]
        if len(inside) > MANY:  # what the eye cannot tell apart need not be drawn apart
            near = length // (4 * MANY)
            inside = [(a, b - near) for a, b in merged((a, b + near) for a, b in inside).tolist()]
        if inside:
            table = [((a - begin) / scale, (b - a) / scale) for a, b in inside]
            axes.broken_barh(table, (top + (0.88 - sum(where)), where[1]), **style)

    outer = [s for s in rank.spans if s.kind != "wait" and not s.depth]
    busy = computing(rank)
    for kind in dict.fromkeys(s.kind for s in outer):
        boxes, colour = [(s.begin, s.end) for s in outer if s.kind == kind], KINDS.get(kind, OTHER)
        bars(boxes, COMPUTE_AT, facecolor=colour, edgecolor="white", linewidth=0.4, alpha=PALE)
        bars(common(merged(boxes), busy).tolist(), COMPUTE_AT, facecolor=colour)
    for span in outer:
        _label(axes, span, busy, (begin, end), top + 0.88 - COMPUTE_AT[0] - COMPUTE_AT[1] / 2)
    single = [] if rank.wire else [m for m in rank.messages if m.op == "send"]
    for axis, colour in AXES.items():
        boxes = [(c.begin, c.end) for c in rank.calls if trace.axis(c) == axis]
        bars(boxes, MOVE_AT, facecolor=colour, edgecolor="none")
        wire = [m for m in rank.wire if trace.axis(m) == axis and m.begin < m.end]
        moved = under_way(rank, wire)
        bars(moved.tolist(), MOVE_AT, facecolor=colour, edgecolor="none")
        # What came in while the rank did something else may have come earlier than it was noted.
        known = [(m.begin, m.end) for m in wire if m.rank == rank.rank or _holds(moved, m)]
        bars(known, MOVE_AT, facecolor=colour, edgecolor="white", linewidth=0.4)
    bars(waiting(rank).tolist(), MOVE_AT, facecolor=WAIT, edgecolor=EDGE, linewidth=0, hatch="////")
    for axis, colour in AXES.items():
        marks = [(m.begin, m.begin + length // MARK) for m in single if trace.axis(m) == axis]
        bars(marks, MOVE_AT, facecolor=colour, edgecolor="none")
    if rank.lost and begin <= rank.end <= end:
        _say_lost(axes, rank, (rank.end - begin) / scale, length / scale)
    found = shares(rank, begin, end)
    parts = (found.computing, found.moving, found.waiting)
    text = " / ".join(f"{part / length:.0%}" for part in parts)
    axes.annotate(
        text, (1.005, rank.rank + 0.5), xycoords=("axes fraction", "data"), va="center", fontsize=8
    )


def _say_lost(axes: Axes, rank: RankTrace, at: float, width: float) -> None:
    """A bar where the rank was lost, and when that was beside it."""
    axes.vlines(at, rank.rank + 0.04, rank.rank + 0.92, color=LOST, linewidth=2)
    style: dict[str, Any] = {"va": "center", "fontsize": 8, "color": LOST, "bbox": dict(BOX)}
    side = "right" if at > width / 2 else "left"
    axes.text(at, rank.rank + 0.71, f" lost at {rank.end / 1e6:g} ms ", ha=side, **style)


def _holds(intervals: Intervals, message: Event) -> bool:
    at = int(np.searchsorted(intervals[:, 0], message.begin, "right")) - 1
    return at >= 0 and bool(message.end <= intervals[at, 1])


def _label(axes: Axes, span: Span, busy: Intervals, window: tuple[int, int], middle: float) -> None:
    """The action or the micro-batch of a span that is long enough, where it computes most."""
    begin, end = max(span.begin, window[0]), min(span.end, window[1])
    text = span.name or ("" if span.micro < 0 else str(span.micro))
    if not text or end - begin < READABLE * (window[1] - window[0]) * (0.4 + 0.3 * len(text)):
        return
    parts = common(np.array([[begin, end]]), busy)
    longest = parts[np.argmax(parts[:, 1] - parts[:, 0])] if len(parts) else np.array([begin, end])
    at = (float(longest.mean()) - window[0]) / unit_of(window[1] - window[0])[0]
    axes.text(at, middle, text, ha="center", va="center", fontsize=7, bbox=dict(BOX))


def add_legend(figure: Figure, windows: Sequence[tuple[Trace, int, int]]) -> None:
    """Of what is in the timelines of these traces, each from its begin to its end, below all."""
    from matplotlib.patches import Patch

    kinds, axes = set[str](), set[str]()
    for trace, begin, end in windows:
        spans = [s for r in trace.ranks for s in r.spans if s.end > begin and s.begin < end]
        kinds |= {s.kind for s in spans if s.kind != "wait" and not s.depth}
        calls = [c for r in trace.ranks for c in (*r.calls, *r.messages)]
        axes |= {trace.axis(c) for c in calls if c.end > begin and c.begin < end}
    marks = [Patch(color=colour, label=kind) for kind, colour in KINDS.items() if kind in kinds]
    if kinds - KINDS.keys():
        marks.append(Patch(color=OTHER, label=", ".join(sorted(kinds - KINDS.keys()))))
    marks += [Patch(color=c, label=f"moving: {axis}") for axis, c in AXES.items() if axis in axes]
    marks.append(Patch(facecolor=WAIT, edgecolor=EDGE, hatch="////", label="waiting"))
    columns = -(-len(marks) // 2)
    figure.legend(handles=marks, loc="outside lower center", ncols=columns, frameon=False)
    figure.text(0.995, 0.995, "computing / moving / waiting", ha="right", va="top", fontsize=8)
