"""Figures of pipeline schedules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from minipar.parallel.schedule import named
from minipar.parallel.schedule_time import EVEN, Times, simulate
from minipar.trace.schedule_figure import draw_schedule


def schedule(path: Path, name: str, chunks: int = 1, times: Times = EVEN, title: str = "") -> None:
    """Four stages, eight micro-batches."""
    timeline = simulate(named(name, 4, 8, chunks), times)
    draw_schedule(timeline, title=title or name).savefig(path)


UNEVEN = Times(forward=[1, 2, 1, 1], backward=[2, 4, 2, 2])
MADE: dict[str, Callable[[Path], None]] = {
    "schedule_gpipe.png": partial(schedule, name="gpipe"),
    "schedule_1f1b.png": partial(schedule, name="1f1b"),
    "schedule_interleaved.png": partial(schedule, name="interleaved", chunks=2),
    "schedule_zero_bubble.png": partial(schedule, name="zero-bubble"),
    "schedule_uneven.png": partial(schedule, name="gpipe", times=UNEVEN, title="gpipe, uneven"),
}
