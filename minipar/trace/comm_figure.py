"""Communication, measured over predicted: a panel for each call, time over bytes.

    dots     minipar's measurements, a colour for each algorithm
    lines    the formulas of `cost`, with the α, β and γ that were fitted to the same machine
    grey     the peers

Both axes are logarithmic: α is where a line is flat, β (and γ) where it rises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from minipar.bench.fit import Machine, predicted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = MappingProxyType(  # distinct for the colour-blind, too (Okabe & Ito)
    {
        "naive": "#E69F00",
        "tree": "#D55E00",
        "ring": "#0072B2",
        "halving_doubling": "#56B4E9",
        "direct": "#009E73",
        "pairwise": "#CC79A7",
        "flat": "#8C510A",
        "native": "#7570B3",
        "there_and_back": "#222222",
    }
)
WIDTHS = MappingProxyType(  # where algorithms are equal, one is seen around the other
    {"naive": 3.3, "tree": 2.4, "ring": 1.6, "halving_doubling": 0.9}
)
GREY = "#8A8A8A"
PEER_MARKS = MappingProxyType({"gloo": "v", "openmpi": "s"})
BYTES = MappingProxyType({8: "8 B", 2**10: "1 KB", 2**17: "128 KB", 2**24: "16 MB"})
SECONDS = MappingProxyType(
    {1e-7: "0.1 µs", 1e-6: "1 µs", 1e-5: "10 µs", 1e-4: "0.1 ms", 1e-3: "1 ms"}
    | {1e-2: "10 ms", 0.1: "0.1 s", 1.0: "1 s", 10.0: "10 s"}
)
MACHINE = ("alpha_s", "beta_s_per_byte", "gamma_s_per_byte", "relative_error")

Row = Mapping[str, Any]


def draw_comm(rows: Sequence[Row]) -> Figure:
    """The figure of what `bench_comm` yields; a barrier, which has no bytes, is left out."""
    from matplotlib.figure import Figure

    fit = next((row["fit"] for row in rows if "fit" in row), None)
    timed = [row for row in rows if row.get("seconds") is not None and row["bytes"]]
    ops = list(dict.fromkeys(row["op"] for row in timed)) or [""]
    wide = min(3, len(ops))
    tall = -(-len(ops) // wide)
    figure = Figure(figsize=(1.5 + 3.6 * wide, 1.6 + 2.9 * tall), dpi=150, layout="constrained")
    panels = figure.subplots(tall, wide, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(ops) :]:
        axes.set_visible(False)
    for axes, op in zip(panels.flat, ops):
        _panel(axes, op, [row for row in timed if row["op"] == op], fit)
    seconds = [row["seconds"] for row in timed] or [1.0]
    panels[0, 0].set_ylim(0.5 * min(seconds), 2 * max(seconds))  # they are shared
    for axes in panels[:, 0]:
        axes.set_ylabel("time of a call")
    for axes in panels[-1]:
        axes.set_xlabel("bytes of the whole array")
    figure.suptitle(_title(fit), fontsize=12, x=0.02, ha="left")
    _legend(figure, timed, predictions=fit is not None)
    return figure


def _panel(axes: Axes, op: str, rows: Sequence[Row], fit: Row | None) -> None:
    axes.set(title=op, xscale="log", yscale="log")
    for name, marker in PEER_MARKS.items():
        theirs = [row for row in rows if row["backend"] == name]
        axes.plot(*_points(theirs), f"{marker}:", color=GREY, markersize=4.5, linewidth=0.8)
    ours = [row for row in rows if row["backend"] not in PEER_MARKS]
    for algorithm, colour in COLOURS.items():
        mine = [row for row in ours if row["algorithm"] == algorithm]
        n, seconds = _points(mine)
        width = WIDTHS.get(algorithm, 1.6)
        axes.plot(n, seconds, "o", color=colour, markersize=1 + 3 * width)
        if fit is not None and n:
            dense = np.geomspace(min(n), max(n), 100)
            machine = Machine(*(fit[name] for name in MACHINE))
            line = [predicted(op, algorithm, mine[0]["ranks"], b, machine) for b in dense]
            axes.plot(dense, line, color=colour, linewidth=width)
    axes.set_xticks(list(BYTES), list(BYTES.values()))
    axes.set_yticks(list(SECONDS), list(SECONDS.values()))
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _points(rows: Sequence[Row]) -> tuple[list[int], list[float]]:
    return [row["bytes"] for row in rows], [row["seconds"] for row in rows]


def _title(fit: Row | None) -> str:
    if fit is None:
        return "Collectives, measured"
    rates = [f"{1e-9 / max(fit[name], 1e-15):.3g} GB/s" for name in MACHINE[1:3]]
    return (
        f"Collectives, measured (dots) and predicted (lines): {fit['ranks']} ranks on "
        f"{fit['cores']} cores\nα = {fit['alpha_s'] * 1e6:.3g} µs a message,  "
        f"1/β = {rates[0]} sent,  1/γ = {rates[1]} added"
    )


def _legend(figure: Figure, rows: Sequence[Row], predictions: bool) -> None:
    from matplotlib.lines import Line2D

    ours = {row["algorithm"] for row in rows if row["backend"] not in PEER_MARKS}
    there = ours | {row["backend"] for row in rows}
    width = 2 if predictions else 0
    marks = [
        Line2D([], [], color=colour, marker="o", linewidth=width, label=name)
        for name, colour in COLOURS.items()
        if name in there
    ]
    marks += [
        Line2D([], [], color=GREY, marker=marker, linestyle=":", label=name)
        for name, marker in PEER_MARKS.items()
        if name in there
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
