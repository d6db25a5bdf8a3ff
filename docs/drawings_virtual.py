"""The figure of communication.md's section on virtual time: the run of virtual_time.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import minipar
from minipar import ANY, Cluster, Group

CLUSTER = Cluster(alpha_s=10e-6, beta_s_per_byte=1 / 1e9, slow={3: 3.0})
GRADIENT = np.zeros(125_000)
PUSH_MS = 1.01  # α + nβ
COLOURS = ("#222222", "#56B4E9", "#E69F00", "#CC79A7")  # of a rank's messages
COMPUTES, INK, UNTIL = "#D9D9D9", "#222222", 17.0  # ms


def pushes(group: Group) -> list[tuple[int, float]]:
    """On rank 0 whose push has come when, in ms; on the others when each has begun and left."""
    seen = []
    for _ in range(9 if group.rank == 0 else 3):
        if group.rank == 0:
            sender, _ = group.recv(ANY)
        else:
            sender = group.rank
            group.spend(4e-3)
            group.send(GRADIENT, 0)
        seen.append((sender, group.now_ns() / 1e6))
    return seen


def virtual_time(path: Path) -> None:
    """Rows for the workers, and one for what comes in on rank 0; numbers say whose push."""
    arrived, *left = minipar.run(pushes, ranks=4, cluster=CLUSTER)
    figure = Figure(figsize=(8.4, 2.9), dpi=150, layout="constrained")
    axes = figure.subplots()
    for row, sends in enumerate(left):
        begin = 0.0
        for rank, end in sends:
            _bar(axes, row, (begin, end - PUSH_MS), COMPUTES, "computes")
            _bar(axes, row, (end - PUSH_MS, end), COLOURS[rank], "")
            begin = end
    for rank, end in arrived:
        _bar(axes, 3, (end - PUSH_MS, end), COLOURS[rank], str(rank))
    axes.set(xlim=(0, UNTIL), ylim=(3.5, -0.5), xticks=range(0, 17, 2))
    axes.set_yticks(range(4), [*(f"rank {r}" for r in (1, 2, 3)), "into rank 0"])
    axes.set_xlabel("ms", loc="right")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "left", "right"]].set_visible(False)
    sent = [
        Patch(facecolor=COLOURS[r], edgecolor=INK, label=f"push of rank {r}") for r in (1, 2, 3)
    ]
    figure.legend(handles=sent, loc="outside lower left", ncols=3, frameon=False)
    figure.savefig(path)


def _bar(axes: Any, row: int, span: tuple[float, float], colour: str, text: str) -> None:
    begin, end = span
    axes.barh(row, end - begin, left=begin, height=0.7, color=colour, edgecolor="white")
    if begin < UNTIL:
        middle = (begin + min(end, UNTIL)) / 2
        axes.text(middle, row, text, ha="center", va="center", fontsize=9.5, color=INK)


MADE: dict[str, Callable[[Path], None]] = {"virtual_time.png": virtual_time}
