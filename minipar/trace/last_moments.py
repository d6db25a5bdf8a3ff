"""The figure of a run's last moments, for when it has failed.

It shows what each rank did just before: who waited, and for whom all the others did.
"""

from __future__ import annotations

from pathlib import Path

from minipar.errors import TraceError
from minipar.trace.timeline_figure import draw_timeline
from minipar.trace.totals import window_of
from minipar.trace.trace_file import load

LAST_MS = 100.0
NAME = "last-moments.png"


def last_moments(folder: str | Path) -> str:
    """Draw the end of the trace in a folder into it; a line that says where, or why not."""
    path = Path(folder) / NAME
    try:
        trace = load(folder)
    except TraceError as error:
        return f"nothing is known of the last moments: {error}"
    begin, end = window_of(trace, last_ms=LAST_MS)
    title = f"the last {(end - begin) / 1e6:.0f} ms"
    if trace.silent:
        title += f"; killed: rank {', '.join(map(str, trace.silent))}"
    draw_timeline(trace, begin, end, title).savefig(path)
    return f"the last moments are drawn in {path}"
