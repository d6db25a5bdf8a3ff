"""`minipar schedule`: print a pipeline schedule, check it, give it times, draw it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

from minipar import cost
from minipar.errors import ScheduleError, UsageError
from minipar.parallel.schedule import NAMES, Program, named
from minipar.parallel.schedule_check import check
from minipar.parallel.schedule_grid import marked_grid, parse
from minipar.parallel.schedule_time import Timeline, Times, drawn, simulate
from minipar.verbs.verb import listed, verb

TIMES = (
    ("--forward", "1", "time of a forward through a stage (default: 1)"),
    ("--backward", "2", "time of a backward through a stage (default: 2)"),
    ("--weight", "", "the part of it that is the weights' (default: half)"),
    ("--link", "0", "time of a message to the next stage (default: 0)"),
    ("--recompute", "0", "time of a forward done again before backward (default: 0)"),
)


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "schedule",
        "print, check, time and draw a pipeline schedule",
        "minipar schedule 1f1b --stages 4 --microbatches 8 --figure 1f1b.png\n"
        "  minipar schedule --check my_grid.txt --forward 1,1,1.5,1\n\n"
        "Times are one for all stages, or one for each with commas between them.",
        _schedule,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--stages", type=int, metavar="S", help="(default: 4)")
    parser.add_argument("--microbatches", type=int, metavar="M", help="(default: 8)")
    parser.add_argument(
        "--chunks", type=int, metavar="V", help="per stage (default: 2 if interleaved, else 1)"
    )
    parser.add_argument(
        "--check", metavar="FILE", help="take the schedule from a grid in a file (- is stdin)"
    )
    for option, default, text in TIMES:
        parser.add_argument(option, metavar="T", default=default, help=text)
    parser.add_argument("--figure", metavar="FILE", help="draw it")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _schedule(arguments: argparse.Namespace) -> int:
    programs = _programs(arguments)
    given = {option[2:]: getattr(arguments, option[2:]) for option, *_ in TIMES}
    times = Times(**{name: _times(name, text) for name, text in given.items() if text})
    timeline = simulate(programs, times)
    found = _findings(arguments.name, programs, times, timeline)
    print(json.dumps(found) if arguments.json else f"{drawn(timeline)}\n\n{_said(found)}")
    if arguments.figure:
        _draw(timeline, arguments)
    return 0


def _programs(arguments: argparse.Namespace) -> list[Program]:
    """The schedule of that name, or that in the file; with both, they must be the same."""
    name = arguments.name
    asked = arguments.stages, arguments.microbatches, arguments.chunks
    if arguments.check is None:
        if name is None:
            raise UsageError(f"say which schedule: {', '.join(NAMES)}, or --check FILE.")
        return named(name, *_or(asked, (4, 8, 2 if name == "interleaved" else 1)))
    programs = parse(_text(arguments.check))
    checked = check(programs)
    if name is not None:
        sizes = _or(asked, (len(programs), checked.micros, checked.chunks))
        _compare(programs, named(name, *sizes), name)
    return programs


def _or(asked: Iterable[int | None], default: Iterable[int]) -> list[int]:
    return [y if x is None else x for x, y in zip(asked, default, strict=True)]


def _compare(programs: list[Program], wanted: list[Program], name: str) -> None:
    if len(programs) != len(wanted):
        said = f"{len(programs)} stage{'s' * (len(programs) > 1)}"
        raise ScheduleError(f"the grid has {said}, not {len(wanted)}.")
    for stage, (program, other) in enumerate(zip(programs, wanted, strict=True)):
        if program != other:
            k = next(k for k, pair in enumerate(zip_longest(program, other)) if len({*pair}) > 1)
            does = program[k] if k < len(program) else "nothing more"
            where = f"stage {stage} does {does} where {name} does {[*other, 'nothing more'][k]}"
            shown = marked_grid(programs, [(stage, k)])
            raise ScheduleError(f"the grid can be run, but is not {name}: {where}.\n{shown}")


def _text(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"--check {path}: this file is no text.") from None


def _times(name: str, text: str) -> float | list[float]:
    try:
        times = [float(word) for word in listed(text)]
    except ValueError:
        times = []
    if not times:
        raise UsageError(f"--{name} {text}: give a time, or one for each stage with commas.")
    return times[0] if len(times) == 1 else times


def _findings(
    name: str | None, programs: list[Program], times: Times, timeline: Timeline
) -> dict[str, Any]:
    """What is known about it; by the formulas, too, where they hold."""
    checked = check(programs)
    found: dict[str, Any] = {
        "schedule": name,
        "stages": len(programs),
        "micros": checked.micros,
        "chunks": checked.chunks,
        "length": timeline.length,
        "bubble": timeline.bubble,
        "stored": [peak / checked.chunks for peak in timeline.peaks],
        "programs": [" ".join(map(str, program)) for program in programs],
        "spans": [[(str(a), start, end) for a, start, end in row] for row in timeline.spans],
    }
    even = _even(times)
    if name is not None and even:
        sizes = len(programs), checked.micros, checked.chunks
        formulas = cost.of_schedule(name, *sizes, times=even)
        found["bubble_formula"], found["stored_formula"] = formulas
    return found


def _even(times: Times) -> tuple[float, float, float] | None:
    """The times of F, I and W, if they are such as the formulas are for."""
    f, b, w = times.forward, times.backward, times.weight
    if not isinstance(f, float) or not isinstance(b, float):
        return None
    if w is None:
        w = b / 2
    if not isinstance(w, float):
        return None
    alone = times.link == times.recompute == 0
    return (f, b - w, w) if alone and f + b > 0 and w <= b - w else None


def _said(found: dict[str, Any]) -> str:
    rows = [f"takes   {found['length']:g}", f"bubble  {100 * found['bubble']:.1f} %"]
    rows.append(f"stores  {' '.join(f'{x:.3g}' for x in found['stored'])}")
    if "bubble_formula" in found:
        formulas = f"{100 * found['bubble_formula']:.1f} %", found["stored_formula"]
        rows[1] += f"   by the formula {formulas[0]}"
        rows[2] += f"   by the formula {' '.join(f'{x:.3g}' for x in formulas[1])}"
    return "\n".join(rows) + "   (micro-batches of activations, at most, by stage)"


def _draw(timeline: Timeline, arguments: argparse.Namespace) -> None:
    from minipar.trace.schedule_figure import draw_schedule

    try:
        draw_schedule(timeline, title=arguments.name or "").savefig(arguments.figure)
    except ValueError as error:  # an ending that matplotlib does not know
        raise UsageError(f"--figure {arguments.figure}: {error}.") from None
