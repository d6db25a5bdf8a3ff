"""The figure of a run's last moments, for when it has failed: what each rank did just before.

    rank 0   [ all_reduce ][/// waits for rank 1 ///]  |
    rank 1   [ all_reduce ]        left no trace       v
    rank 2   [ all_reduce ][/// waits for rank 0 ///]  ^

An arrow goes from each rank that waited in vain to the one that it waited for. If all had been
waiting for long, the figure ends soon after the last of them had begun.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minipar.errors import TraceError
from minipar.trace.timeline_figure import draw_timeline, unit_of
from minipar.trace.totals import window_of
from minipar.trace.trace_file import RankTrace, Trace, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAST_MS, AFTER_MS = 100.0, 50.0
NAME = "last-moments.png"
ARROW = "#CC3311"
MARGIN = 0.1  # of the width: what a text is away from the edges


def last_moments(folder: str | Path) -> str:
    """Draw the end of the trace in a folder into it; a line that says where, or why not."""
    path = Path(folder) / NAME
    path.unlink(missing_ok=True)  # of an earlier run
    try:
        trace = load(folder)
    except TraceError as error:
        return f"nothing is known of the last moments: {error}"
    draw_last_moments(trace).savefig(path)
    return f"the last moments are drawn in {path}"


def draw_last_moments(trace: Trace) -> Figure:
    """The last LAST_MS milliseconds, or those around the begin of the last wait in vain, or the
    loss of a rank.
    """
    begin, end = window_of(trace, last_ms=LAST_MS)
    begun = [_begin(rank) for rank in trace.ranks if rank.in_vain]
    begun += [rank.end for rank in trace.ranks if rank.lost]
    silence = end - max(begun, default=end)
    if silence > AFTER_MS * 1e6:
        end = max(begun) + int(AFTER_MS * 1e6)
        begin = max(0, end - int((LAST_MS + AFTER_MS) * 1e6))
    title = f"the last moments: {(end - begin) / 1e6:.0f} ms"
    if silence > 10 * AFTER_MS * 1e6:
        title += f", after which nothing happened for {silence / 1e9:.1f} s"
    figure = draw_timeline(trace, begin, end, title)
    _say_who_waits(figure.axes[0], trace, begin, end)
    return figure


def _begin(rank: RankTrace) -> int:
    """When its last wait began."""
    return max((s.begin for s in rank.spans if s.kind == "wait"), default=rank.end)


def _say_who_waits(axes: Axes, trace: Trace, begin: int, end: int) -> None:
    scale, _ = unit_of(end - begin)
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
    box = {"facecolor": "white", "linewidth": 0, "boxstyle": "round,pad=0.2"}
    for place, rank in enumerate(trace.ranks):
        if rank.rank in trace.silent:
            text = "left no trace: it was killed, or never began"
            axes.text((end - begin) / scale / 2, place + 0.5, text, color=ARROW, **style)
        if not rank.in_vain:
            continue
        a, b = max(begin, _begin(rank)), min(end, rank.end)
        text, middle = f"waits for {rank.in_vain}", place + 0.75
        where = min(max((a + b) / 2 - begin, MARGIN * (end - begin)), (1 - MARGIN) * (end - begin))
        axes.text(where / scale, middle, text, bbox=box, **style)
        whom = rank.in_vain.removeprefix("rank ")
        if whom.isdecimal() and int(whom) < len(trace.ranks) and int(whom) != place:
            x = (b - begin) / scale * (0.99 - 0.02 * (place % 5))
            arrow = {"arrowstyle": "-|>", "color": ARROW, "linewidth": 1.5, "shrinkB": 0}
            axes.annotate("", (x, int(whom) + 0.75), (x, middle), arrowprops=arrow)
