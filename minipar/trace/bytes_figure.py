"""Bytes by axis: what every rank sent along dp, pp and tp, and in which operations.

    rank 0  [ pp send    ][ dp all_reduce      ]  3.2 MB
    rank 1  [ pp send                ][ dp all_reduce      ]  4.4 MB

Counted is payload, at the sender. The colour says the axis, its lightness the operation; one that
has less than a thousandth of the bytes is not named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from minipar.errors import UsageError
from minipar.trace.timeline_figure import AXES, OTHER
from minipar.trace.totals import step_times
from minipar.trace.trace_file import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MB = 2**20
PALEST = 0.7  # how much white is in the last of many operations
HATCHES = ("", "//", "", "xx", "\\\\")  # of one axis after another, for print


def lacks(trace: Trace) -> str:
    """Why there is nothing to draw; empty if there is."""
    if any(rank.messages for rank in trace.ranks):
        return ""
    return "no rank of this trace has sent anything: bytes by axis need two ranks or more."


def draw_bytes(trace: Trace, begin: int, end: int, title: str = "") -> Figure:
    """What left each rank between begin and end, in ns of the trace.  Raises: UsageError."""
    from matplotlib.figure import Figure

    if reason := lacks(trace):
        raise UsageError(reason)
    sent = sent_by(trace, begin, end)
    if not any(sent):
        raise UsageError("nothing was sent in this part of the run; leave out --step or --last.")
    figure = Figure(figsize=(10, 1.6 + 0.42 * len(sent)), dpi=130, layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(sent)
    most = max(sum(row.values()) for row in sent)
    for (axis, op), (colour, hatch) in styles(sent).items():
        width = [row[axis, op] / MB for row in sent]
        shown = max(row[axis, op] for row in sent) > most / 1000
        axes.barh(range(len(sent)), width, 0.74, left, color=colour, edgecolor="white",
                  linewidth=0.5, hatch=hatch, label=f"{axis} {op}" if shown else "_")  # fmt: skip
        left = [a + b for a, b in zip(left, width)]
    for n, total in enumerate(left):
        axes.annotate(f" {total:.3g}", (total, n), va="center", fontsize=8)
    axes.set_yticks(range(len(sent)), [f"rank {rank.rank}" for rank in trace.ranks])
    axes.set(ylim=(len(sent) - 0.5, -0.5), xlim=(0, 1.06 * max(left)), xlabel="MB sent")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11)
    marks = axes.get_legend_handles_labels()
    figure.legend(*marks, loc="outside lower center", ncols=min(5, len(marks[0])), frameon=False)
    return figure


def sent_by(trace: Trace, begin: int, end: int) -> list[Counter[tuple[str, str]]]:
    """For each rank, the bytes that it sent in that time, by axis and operation.

    Ranks are not at the same step at all times: where a whole step of a rank is in the window, what
    is there of the steps beside it does not count.
    """
    found = []
    for rank in trace.ranks:
        steps = [(a, b) for a, b in step_times(rank) if a < end and b > begin]
        whole = [begin <= a and b <= end for a, b in steps]
        beside = [step for step, inside in zip(steps, whole) if not inside] if any(whole) else []
        row: Counter[tuple[str, str]] = Counter()
        for m in rank.messages:
            if begin <= m.begin < end and not any(a <= m.begin < b for a, b in beside):
                row[trace.axis(m), m.op] += m.nbytes
        found.append(+row)
    return found


def styles(sent: Sequence[Mapping[tuple[str, str], int]]) -> dict[tuple[str, str], tuple[str, str]]:
    """Colour and hatch for each axis and operation, in the order in which they are stacked: axis by
    axis, of each the one with most bytes first, in the full colour.
    """
    from matplotlib.colors import to_hex, to_rgb

    total = sum(map(Counter, sent), Counter[tuple[str, str]]())
    axes = sorted({axis for axis, _ in total}, key=lambda axis: [*AXES, axis].index(axis))
    found = {}
    for n, axis in enumerate(axes):
        ops = sorted((key for key in total if key[0] == axis), key=lambda key: -total[key])
        for k, key in enumerate(ops):
            white = PALEST * k / max(2, len(ops) - 1)
            red, green, blue = (c + (1 - c) * white for c in to_rgb(AXES.get(axis, OTHER)))
            found[key] = to_hex((red, green, blue)), HATCHES[n % len(HATCHES)]
    return found
