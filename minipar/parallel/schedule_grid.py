"""A schedule as text, to be read and written by people: a line per stage, a cell per action.

    stage 0   F0 F1 B0 F2 B1 B2
    stage 1   F0 B0 F1 B1 F2 B2

A cell is a phase, the number of a micro-batch and, from chunk 1 on, `.` and the chunk: F0 B12 W3.1.
What else a line may hold, so that a timeline is a grid, too: `.` is a stage that waits, `-` behind
a cell says that it lasts, `#` begins a remark. `stage 0` in front may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from minipar.errors import ScheduleError
from minipar.parallel.schedule import Action, Program

CELL = re.compile(r"([FBIW])(\d+)(?:\.(\d+))?")
STAGE = re.compile(r"\s*stage\s+(\d+)\b[ :|]*", re.IGNORECASE)
Place = tuple[int, int]  # stage, and which of its actions
AROUND, WIDE, HIGH = 6, 26, 12  # of a large grid: cells around a mark; columns and rows in all


def grid(programs: Sequence[Program]) -> str:
    """The schedule as text; `parse` reads it back."""
    rows = [[str(action) for action in program] for program in programs]
    width = max((len(cell) for row in rows for cell in row), default=0)
    return lined([[cell.ljust(width) for cell in row] for row in rows], range(len(rows)))


def parse(text: str) -> list[Program]:
    """The schedule that a text says.

    Raises ScheduleError, which names line and cell, for what is no cell, and for stages that are
    not in order. Whether the schedule can be run is not asked here: see schedule_check.
    """
    programs: list[Program] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0]
        name = STAGE.match(line)
        cells = line[name.end() if name else 0 :].split()
        if not name and not cells:
            continue
        if name and int(name[1]) != len(programs):
            raise ScheduleError(
                f"line {number} says stage {name[1]}, but is the line of stage {len(programs)}."
            )
        cells = [cell.rstrip("-") for cell in cells if cell.strip(".")]
        programs.append([_action(cell, number, k) for k, cell in enumerate(cells, start=1)])
    if not programs:
        raise ScheduleError("there is no schedule in this text: write a line per stage, as F0 B0.")
    return programs


def _action(cell: str, line: int, k: int) -> Action:
    parts = CELL.fullmatch(cell)
    if parts is None:
        raise ScheduleError(
            f"line {line}, cell {k}: '{cell}' is no action; write a phase (F, B, I or W), the "
            "micro-batch and, if there are several, the chunk: F0 or B12 or W3.1."
        )
    return Action(parts[1], int(parts[2]), int(parts[3] or 0))


def marked_grid(programs: Sequence[Program], marks: Collection[Place]) -> str:
    """The grid with these cells in [brackets]; of a large one, the part around them.

    A mark behind the last action of a stage is [?]: there something is missing.
    """
    rows = [[str(action) for action in program] for program in programs]
    for stage, k in marks:
        rows[stage] += ["?"] * (k + 1 - len(rows[stage]))
        rows[stage][k] = f"[{rows[stage][k]}]"
    first, low = min(stage for stage, _ in marks), min(k for _, k in marks)
    last, high = max(stage for stage, _ in marks), max(k for _, k in marks)
    top, left = max(0, first - AROUND // 2), max(0, low - AROUND)
    bottom = min(top + HIGH, last + AROUND // 2 + 1)
    columns = range(left, min(left + WIDE, high + AROUND + 1, max(map(len, rows))))
    width = {k: max(len(row[k]) for row in rows[top:bottom] if k < len(row)) for k in columns}
    shown = []
    for row in rows[top:bottom]:
        before = ["…"] if left else []
        after = ["…"] if len(row) > columns.stop else []
        cells = [row[k].ljust(width[k]) for k in columns if k < len(row)]
        shown.append(before + cells + after)
    return lined(shown, range(top, bottom))


def lined(rows: Sequence[Sequence[str]], stages: Collection[int]) -> str:
    wide = len(str(max(stages, default=0)))
    return "\n".join(
        f"stage {stage:{wide}}   {' '.join(row)}".rstrip()
        for stage, row in zip(stages, rows, strict=False)
    )
