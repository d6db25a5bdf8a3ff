"""A figure of a pipeline that ran."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from minipar.parallel.schedule import Action, named
from minipar.parallel.schedule_time import Span, Timeline, Times, simulate
from minipar.trace.schedule_figure import draw_schedule

MEASURED = Path(__file__).parent / "figures" / "pipeline_measured.json"


def pipeline_run(path: Path) -> None:
    """A measured step of 1F1B, and below each stage what the simulator gives for it."""
    run = json.loads(MEASURED.read_text())["1f1b"]
    (f0, b0), (f1, b1) = run["stage"]
    right = simulate(named("1f1b", 2, 8), Times([f0, f1], [b0, b1]))
    rows, peaks = [], []
    for stage, spans in enumerate(run["spans"]):
        ran = [Span(Action(name[0], int(name[1:])), start, end) for name, start, end in spans]
        rows += [ran, right.spans[stage]]
        peaks += [run["peaks"][stage]] * 2
    length = max(run["ran_ms"], right.length)
    figure = draw_schedule(Timeline(rows, length, run["bubble"], peaks), title="1f1b as it ran")
    axes = figure.axes[0]
    axes.set_yticks(range(4), ["stage 0", "simulated", "stage 1", "simulated"])
    axes.tick_params(axis="y", labelsize=8.5)
    axes.set_xlabel("ms", loc="right", labelpad=1)
    figure.savefig(path)


MADE: dict[str, Callable[[Path], None]] = {"pipeline_run.png": pipeline_run}
