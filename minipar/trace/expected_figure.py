"""Expected beside measured: what the formulas said before the first step, and what the trace shows.

    bytes of a step        time of a step      memory of a stage
    ░░ ██   ░░ ██          ░░ ██               ░▒▓ █▇▆   ░▒▓ █▇▆
     dp      tp                                stage 0   stage 1

Expected is what `minipar train` leaves in RUN/costs.json at its end (expected.py, forecast.py).
Measured are means over the ranks and the steps of the trace; of memory it is the most in the whole
run, of the rank of each kind that held most. Pale is expected. On processes the buffers of the
forecast contain the memory of the transport, which a trace does not count.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minipar.alive import KINDS
from minipar.errors import UsageError
from minipar.trace.memory_figure import COLOURS, MB, held_between, peak_of
from minipar.trace.timeline_figure import AXES, OTHER
from minipar.trace.totals import step_times
from minipar.trace.trace_file import RankTrace, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALE = 0.35


def lacks(trace: Trace) -> str:
    """Why there is nothing to draw; empty if there is."""
    if trace.folder is not None and (trace.folder.parent / "costs.json").is_file():
        return ""
    return (
        "what was expected lies beside the trace (costs.json) when a minipar train is over; "
        "scripts, and runs that failed, have none."
    )


def draw_expected(trace: Trace, begin: int, end: int, title: str = "") -> Figure:
    """Of the steps between begin and end, in ns of the trace.  Raises: UsageError."""
    from matplotlib.figure import Figure

    if reason := lacks(trace):
        raise UsageError(reason)
    assert trace.folder is not None
    costs = json.loads((trace.folder.parent / "costs.json").read_text())
    card = {row["what"]: row for row in costs["card"]}
    seconds, sent = step_of(trace, begin, end)
    memory = memory_of(trace, costs["forecast"], 0, trace.end)
    figure = Figure(figsize=(11, 3.6), dpi=130, layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1 + len(sent), 1.6, 1 + 1.2 * len(memory)))
    _draw_bytes(panels[0], card, sent)
    _draw_time(panels[1], card, seconds)
    _draw_memory(panels[2], memory)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", length=0)
        axes.margins(y=0.15)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    _legend(figure)
    return figure


def step_of(trace: Trace, begin: int, end: int) -> tuple[float, Counter[str]]:
    """Of a step: seconds, and the bytes that a rank sends along each axis; means.

    Raises: UsageError if no whole step lies in that time.
    """
    took, sent = [], Counter[str]()
    for rank in trace.ranks:
        edges = np.array([w for w in step_times(rank) if begin <= w[0] and w[1] <= end]).reshape(
            -1, 2
        )
        took += (edges[:, 1] - edges[:, 0]).tolist()
        for message in rank.messages:
            at = np.searchsorted(edges[:, 0], message.begin, "right") - 1
            if at >= 0 and message.begin < edges[at, 1]:
                sent[trace.axis(message)] += message.nbytes
    if not took:
        raise UsageError("no step of the training lies whole in this part of the run.")
    return float(np.mean(took)) / 1e9, Counter({a: n / len(took) for a, n in sent.items()})


def memory_of(
    trace: Trace, needs: Sequence[dict[str, Any]], begin: int, end: int
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name of a kind of rank, bytes by kind of array as forecast, and as held by the largest."""
    found = []
    for need in needs:
        ranks = [r for r in trace.ranks if need["name"] in ("each rank", f"stage {_stage(r)}")]
        peaks = [peak_of(held_between(rank, begin, end)) for rank in ranks if rank.held]
        if peaks:
            forecast = np.array([need[kind] for kind in KINDS])
            found.append((need["name"], forecast, max(peaks, key=np.sum)))
    return found


def _stage(rank: RankTrace) -> int:
    """Where the rank stands in its pipeline."""
    return next((r.index(rank.rank) for axis, r in rank.groups.values() if axis == "pp"), 0)


# -- drawing ----------------------------------------------------------------------------------


def _pair(
    axes: Axes, x: float, both: Sequence[float | None], colour: str, word: Callable[[float], str]
) -> None:
    """Two bars, the first one pale, with what they are above; a dash for what nobody expected."""
    for at, height, alpha in ((x - 0.2, both[0], PALE), (x + 0.2, both[1], 1)):
        axes.bar(at, height or 0, 0.38, color=colour, alpha=alpha)
        text = "-" if height is None else word(height)
        axes.annotate(text, (at, height or 0), ha="center", va="bottom", fontsize=8)


def _draw_bytes(axes: Axes, card: dict[str, Any], sent: Counter[str]) -> None:
    total = sent.total()
    seen = [axis for axis in sent if f"sent {axis}" in card and sent[axis] > total / 1000]
    names = sorted(seen, key=lambda axis: [*AXES, axis].index(axis))
    for n, axis in enumerate(names):
        expected = card.get(f"sent {axis}", {}).get("expected")
        pair = (None if expected is None else expected / MB, sent[axis] / MB)
        _pair(axes, n, pair, AXES.get(axis, OTHER), "{:.3g}".format)
    axes.set_xticks(range(len(names)), names)
    axes.set_title("MB sent by a rank in a step", loc="left", fontsize=10)


def _draw_time(axes: Axes, card: dict[str, Any], seconds: float) -> None:
    expected = card["time"]["expected"]
    pair = (None if expected is None else 1e3 * expected, 1e3 * seconds)
    _pair(axes, 0, pair, "#0072B2", "{:.0f}".format)
    axes.set_xticks([])
    axes.set_xlim(-0.9, 0.9)
    axes.set_title("ms of a step", loc="left", fontsize=10)


def _draw_memory(axes: Axes, memory: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> None:
    for n, (_, *both) in enumerate(memory):
        for at, nbytes, alpha in ((n - 0.2, both[0], PALE), (n + 0.2, both[1], 1)):
            below = 0.0
            for kind, size in zip(KINDS, nbytes / MB):
                axes.bar(at, size, 0.38, below, color=COLOURS[kind], alpha=alpha,
                         edgecolor="white", linewidth=0.5)  # fmt: skip
                below += size
            axes.annotate(f"{below:.3g}", (at, below), ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(memory)), [name for name, *_ in memory])
    axes.set_title("MB of arrays", loc="left", fontsize=10)


def _legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    marks = [Patch(color=COLOURS[kind], label=kind) for kind in KINDS]
    marks += [Patch(color="#888888", alpha=PALE, label="pale: expected")]
    marks += [Patch(color="#888888", label="full: measured")]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
