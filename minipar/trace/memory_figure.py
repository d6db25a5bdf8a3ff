"""Memory over time: what each rank's process held, as a line for each rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minipar.errors import UsageError
from minipar.trace.trace_file import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_memory(trace: Trace, begin: int, end: int, title: str = "") -> Figure:
    """Resident memory of all ranks between begin and end, in ns of the trace.

    Raises: UsageError if there is none: threads of one process have no memory of their own.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=130, layout="constrained")
    axes = figure.subplots()
    for rank in trace.ranks:
        inside = [(when, used) for when, used in rank.memory if begin <= when <= end]
        if not inside:
            raise UsageError(
                "the trace has no memory in this window: it is noted for ranks that are processes "
                "(--backend process), whenever a part of a step ends."
            )
        when, used = zip(*inside)
        x = [(t - begin) / 1e6 for t in when]
        axes.step(x, [n / 2**20 for n in used], where="post", label=f"rank {rank.rank}")
    axes.set(xlabel="ms", ylabel="MB resident", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=2, fontsize=8)
    if title:
        axes.set_title(title, loc="left", fontsize=11)
    return figure
