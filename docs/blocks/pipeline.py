"""Blocks about pipeline schedules: grids, tables, and the table of the GPipe paper."""

from __future__ import annotations

from blocks.text import fenced
from minipar import cost
from minipar.errors import ScheduleError
from minipar.parallel.schedule import gpipe, named
from minipar.parallel.schedule_check import check
from minipar.parallel.schedule_grid import grid, parse
from minipar.parallel.schedule_time import Times, drawn, simulate

# Huang et al. 2019, table 2: throughput of K partitions, M micro-batches; 1 is K = 2, M = 1.
PARTITIONS, MICRO_BATCHES = (2, 4, 8), (1, 4, 32)
TRANSFORMER = {1: (1, 1.07, 1.3), 4: (1.7, 3.2, 4.8), 32: (1.8, 3.4, 6.3)}
AMOEBANET = {1: (1, 1.13, 1.38), 4: (1.07, 1.26, 1.72), 32: (1.21, 1.84, 3.48)}

UNEQUAL = """
F0 F1 B0 F2 B1 B2
F0 F1 B1 F2 B0 B2
"""
HALTS = """
F0 B0 F1 B1
F0 F1 B0 B1
"""


def schedule_grid(name: str, stages: str, micros: str) -> str:
    """The programs alone."""
    return fenced(grid(named(name, int(stages), int(micros))))


def schedule_timeline(name: str, stages: str, micros: str, chunks: str = "1") -> str:
    """A schedule in time, where F takes 1 and B takes 2."""
    programs = named(name, int(stages), int(micros), int(chunks))
    return fenced(drawn(simulate(programs)))


def schedule_table() -> str:
    """All schedules, simulated and by the formulas; F takes 1, B takes 2."""
    s, m = 4, 8
    rows = [
        "| schedule | takes | bubble | by the formula | stored by stages 0 to 3 | by the formula |",
        "|---|---:|---:|---:|---|---|",
    ]
    ways = [("naive", 1), ("gpipe", 1), ("1f1b", 1), ("interleaved", 2), ("interleaved", 4)]
    for name, v in [*ways, ("zero-bubble", 1), ("forward", 1)]:
        timeline = simulate(named(name, s, m, v))
        bubble, stored = cost.of_schedule(name, s, m, v)
        shown = f"{name}, {v} chunks" if v > 1 else name
        simulated = ", ".join(f"{peak / v:g}" for peak in timeline.peaks)
        rows.append(
            f"| {shown} | {timeline.length:g} | {timeline.bubble:.1%} | {bubble:.1%} "
            f"| {simulated} | {', '.join(f'{x:g}' for x in stored)} |"
        )
    return "\n".join(rows)


def schedule_wrong(which: str) -> str:
    """What the checker says to a grid that cannot be run."""
    try:
        check(parse({"unequal": UNEQUAL, "halts": HALTS}[which]))
    except ScheduleError as error:
        return fenced(str(error))
    raise AssertionError("this grid can be run")


def throughput(stages: int, micros: int, again: float, shares: list[float] | None = None) -> float:
    """Batches in a unit of time, if a forward of the whole model takes 1.

    again: how much of the forward is done again before backward.  shares: each stage's of the work.
    """
    part = [x / micros for x in shares or [1 / stages] * stages]
    backward, repeated = [2 * x for x in part], [again * x for x in part]
    return 1 / simulate(gpipe(stages, micros), Times(part, backward, recompute=repeated)).length


def gpipe_table() -> str:
    """The paper's table and ours, and the difference."""
    rows = [
        "| K | M | bubble alone | with recomputation | Transformer, paper | difference "
        "| AmoebaNet, paper | difference |",
        "|" + "---:|" * 8,
    ]
    for m in MICRO_BATCHES:
        for i, k in enumerate(PARTITIONS):
            bare, again = (throughput(k, m, x) / throughput(2, 1, x) for x in (0, 1))
            papers = (table[m][i] for table in (TRANSFORMER, AMOEBANET))
            beside = " | ".join(f"{paper:g} | {again / paper - 1:+.0%}" for paper in papers)
            rows.append(f"| {k} | {m} | {bare:.2f} | {again:.2f} | {beside} |")
    return "\n".join(rows)


def gpipe_uneven() -> str:
    """How slow the slowest of K stages would have to be, for AmoebaNet's column with M = 32."""
    rows = ["| K | AmoebaNet, paper | slowest stage ÷ mean |", "|---:|---:|---:|"]
    for k, paper in zip(PARTITIONS, AMOEBANET[32], strict=True):
        low, high = 1 / k, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            shares = [middle, *[(1 - middle) / (k - 1)] * (k - 1)]
            fast = throughput(k, 32, 1, shares) / throughput(2, 1, 1) > paper
            low, high = (middle, high) if fast else (low, middle)
        rows.append(f"| {k} | {paper:g} | {low * k:.2f} |")
    return "\n".join(rows)


BLOCKS = (
    *(schedule_grid, schedule_timeline, schedule_table, schedule_wrong),
    *(gpipe_table, gpipe_uneven),
)
