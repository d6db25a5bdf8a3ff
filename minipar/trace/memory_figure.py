"""Memory over time: what each rank's arrays were for, stacked, as `alive.py` has counted them.

    MB │        ▄▆█▆▄           activations  come with forward, go with backward
       │ ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁     weights, gradients, optimizer state: these stay
       └────────────────── ms

All ranks have one scale, so that stages can be compared. What a process has beside it (Python, its
modules, what an op needs while it runs) is in its resident memory, which is written at the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from minipar.alive import EVERY, FIRST_STEPS, KINDS, in_step
from minipar.errors import UsageError
from minipar.trace.trace_file import RankTrace, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = MappingProxyType(  # distinct for the colour-blind, too (Okabe & Ito), and in print
    {
        "weights": "#3B3B3B",
        "gradients": "#D55E00",
        "optimizer": "#009E73",
        "buffers": "#BDBDBD",
        "activations": "#56B4E9",
    }
)
MB = 2**20


def lacks(trace: Trace) -> str:
    """Why there is nothing to draw; empty if there is."""
    if any(rank.held for rank in trace.ranks):
        return ""
    return (
        "no rank of this trace has told what memory it holds: that is seen where a model of "
        "minipar's layers computes while it is traced."
    )


def draw_memory(trace: Trace, begin: int, end: int, title: str = "") -> Figure:
    """What every rank held between begin and end, in ns of the trace.  Raises: UsageError."""
    from matplotlib.figure import Figure

    if reason := lacks(trace):
        raise UsageError(reason)
    counted = {in_step(s.step) for r in trace.ranks for s in r.spans if begin <= s.begin < end}
    if counted == {False}:
        raise UsageError(
            f"activations are counted in the first {FIRST_STEPS} steps and in every {EVERY}th after"
            " them, and in none of this part of the run: choose another --step."
        )
    ranks = [rank for rank in trace.ranks if rank.end]
    tables = [held_between(rank, begin, end) for rank in ranks]
    size = (10, 1.3 + (0.95 if len(ranks) <= 8 else 0.6) * len(ranks))
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    every = figure.subplots(len(ranks), 1, sharex=True, squeeze=False)[:, 0]
    scale, unit = (1e6, "ms") if end - begin < 20e9 else (1e9, "s")
    top = max(1, max(table[:, 1:].sum(axis=1).max() for table in tables)) / MB
    for axes, rank, table in zip(every, ranks, tables):
        add_held(axes, table, begin, scale)
        axes.set(xlim=(0, (end - begin) / scale), ylim=(0, 1.08 * top))
        axes.set_ylabel(f"rank {rank.rank}", rotation=0, ha="right", va="center")
        axes.annotate(_beside(rank, table, begin, end), (1.01, 0.5), xycoords="axes fraction",
                      va="center", fontsize=8)  # fmt: skip
    every[-1].set_xlabel(f"{unit}{' of virtual time' if trace.virtual else ''}")
    some = f" (activations in every {EVERY}th step)" if False in counted else ""
    title = f"{title + ', ' if title else ''}MB of arrays{some}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    add_kinds(figure, tables)
    return figure


def held_between(rank: RankTrace, begin: int, end: int) -> np.ndarray:
    """[samples, 1 + kinds] of that time: when, and bytes by kind; from what is held at its begin.

    The last row says at its end what the one before it has said.
    """
    table = np.array(rank.held, np.int64).reshape(-1, 1 + len(KINDS))
    before = table[table[:, 0] <= begin][-1:]
    first = before if len(before) else np.zeros((1, table.shape[1]), np.int64)
    inside = table[(table[:, 0] > begin) & (table[:, 0] <= end)]
    found = np.concatenate([first, inside, inside[-1:] if len(inside) else first])
    found[0, 0], found[-1, 0] = begin, end
    return found


def peak_of(table: np.ndarray) -> np.ndarray:
    """Bytes by kind at the moment when all together were the most."""
    return table[table[:, 1:].sum(axis=1).argmax(), 1:]


def add_held(axes: Axes, table: np.ndarray, begin: int, scale: float, unit: int = MB) -> None:
    """A table of `held_between` as areas on each other.  scale: ns of the axis; unit: bytes."""
    x = (table[:, 0] - begin) / scale
    axes.stackplot(
        x, *(table[:, 1:].T / unit), colors=[COLOURS[k] for k in KINDS], step="post", linewidth=0
    )
    edges = table[:, 1:].cumsum(axis=1) / unit
    for edge in edges.T[:-1]:  # so that they are apart in print, too
        axes.step(x, edge, where="post", color="white", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=3)


def _beside(rank: RankTrace, table: np.ndarray, begin: int, end: int) -> str:
    """The most that it held, and that its process had."""
    text = f"most {peak_of(table).sum() / MB:.3g} MB"
    resident = [used for when, used in rank.memory if begin <= when <= end]
    return text + (f"\nresident {max(resident) / MB:.0f} MB" if resident else "")


def add_kinds(figure: Figure, tables: Sequence[np.ndarray]) -> None:
    """The legend of what these tables of `held_between` hold."""
    from matplotlib.patches import Patch

    kinds = [kind for n, kind in enumerate(KINDS) if any(t[:, 1 + n].any() for t in tables)]
    marks = [Patch(color=COLOURS[kind], label=kind) for kind in kinds]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
