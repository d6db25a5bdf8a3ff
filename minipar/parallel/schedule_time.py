"""When does each action of a schedule begin and end, if we say how long they take?

    simulate(one_f_one_b(2, 3), Times(forward=1, backward=2))

    stage 0   F0 F1 .  .  B0--- F2 B1--- .  B2---
    stage 1   .  F0 B0--- F1 B1--- F2 B2--- .  .         takes 12; a quarter of it is bubble

An action begins when its stage is free and what it needs has arrived. A result travels while both
stages compute, and a link carries one message at a time in each direction. Nothing else takes time:
neither starting a send, nor the sends that wait until they are taken.

With recomputation, what F stores is only the input of the stage. Before its B the forward is done
once more. That is R in the picture; it does not wait for the gradient, so it fills bubbles.

Letters: s stages.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from minipar.errors import UsageError
from minipar.parallel.schedule import Action, Program, comes_from, goes_to
from minipar.parallel.schedule_check import check
from minipar.parallel.schedule_grid import lined

PerStage = float | Sequence[float]  # one for all stages, or one for each


class Times(NamedTuple):
    """How long things take, in any unit; with several chunks, all chunks of a stage together.

    weight: the part of backward that is W; the rest is I. By default half of it.
    link: between a stage and the next (the last and the first), either way.
    recompute: the forward that is done again before B or I.
    """

    forward: PerStage = 1.0
    backward: PerStage = 2.0
    weight: PerStage | None = None
    link: PerStage = 0.0
    recompute: PerStage = 0.0


EVEN = Times()


class Span(NamedTuple):
    """An action, or phase R before it, and when it begins and ends."""

    action: Action
    start: float
    end: float


class Timeline(NamedTuple):
    """When a schedule does what.

    spans: per stage, in order.  length: from the first start to the last end.  bubble: the part of
    that in which a stage waits, on average.  peaks: as the checker's.
    """

    spans: list[list[Span]]
    length: float
    bubble: float
    peaks: list[int]


def simulate(programs: Sequence[Program], times: Times = EVEN) -> Timeline:
    """Check a schedule and give each action its time. Cost: linear in the number of actions.

    Raises ScheduleError for a schedule that cannot be run.
    """
    checked, stages = check(programs), len(programs)
    takes, link = _durations(times, stages, checked.chunks)
    spans: list[list[Span]] = [[] for _ in programs]
    free = [0.0] * stages  # when a stage has done what it has so far
    link_free: defaultdict[tuple[int, int], float] = defaultdict(float)  # from, to
    arrives: defaultdict[tuple[int, int, bool], deque[float]] = defaultdict(deque)
    for stage, k in checked.order:
        action = programs[stage][k]
        forward = action.phase == "F"
        if action.phase in "BI" and takes["R"][stage] > 0:
            again = Span(action._replace(phase="R"), free[stage], free[stage] + takes["R"][stage])
            spans[stage].append(again)
            free[stage] = again.end
        src = comes_from(action, stage, stages, checked.chunks)
        start = free[stage]
        if src is not None:
            start = max(start, arrives[src, stage, forward].popleft())
        free[stage] = start + takes[action.phase][stage]
        spans[stage].append(Span(action, start, free[stage]))
        dst = goes_to(action, stage, stages, checked.chunks)
        if dst is not None:
            travels = link[stage if forward else dst] if dst != stage else 0.0
            link_free[stage, dst] = max(free[stage], link_free[stage, dst]) + travels
            arrives[stage, dst, forward].append(link_free[stage, dst])
    return _timeline(spans, checked.peaks)


def _timeline(spans: list[list[Span]], peaks: list[int]) -> Timeline:
    length = max(span.end for row in spans for span in row)
    busy = sum(span.end - span.start for row in spans for span in row)
    bubble = 1 - busy / (length * len(spans)) if length else 0.0
    return Timeline(spans, length, bubble, peaks)


def _durations(
    times: Times, stages: int, chunks: int
) -> tuple[dict[str, list[float]], list[float]]:
    """Per phase what an action takes on each stage; and the links."""
    named = {
        name: _per_stage(name, x, stages) for name, x in times._asdict().items() if x is not None
    }
    backward = named["backward"]
    weight = named.get("weight", [b / 2 for b in backward])
    inputs = [b - w for b, w in zip(backward, weight, strict=True)]
    if min(inputs) < 0:
        raise UsageError("weight is a part of backward: it cannot take longer.")
    whole = {
        "F": named["forward"],
        "B": backward,
        "I": inputs,
        "W": weight,
        "R": named["recompute"],
    }
    return {phase: [t / chunks for t in row] for phase, row in whole.items()}, named["link"]


def _per_stage(name: str, x: PerStage, stages: int) -> list[float]:
    row = [float(x)] * stages if isinstance(x, int | float) else [float(t) for t in x]
    if len(row) != stages:
        raise UsageError(
            f"{name} has {len(row)} times; give one, or one for each of {stages} stages."
        )
    if not all(0 <= t < inf for t in row):
        raise UsageError(f"{name} is {x}: a time is 0 or more.")
    return row


def drawn(timeline: Timeline) -> str:
    """The timeline as text, as wide as the times: `.` waits, `-` goes on. `parse` reads it back.

    The shortest action is as wide as its name. (If it is 16 times shorter than the longest, names
    are cut; and R is none that `parse` knows.)
    """
    spans = [span for row in timeline.spans for span in row]
    lasting = [span.end - span.start for span in spans if span.end > span.start] or [1.0]
    shortest = max(min(lasting), max(lasting) / 16)
    whole = all(abs(span.start / shortest - round(span.start / shortest)) < 1e-6 for span in spans)
    wide = max(len(str(span.action)) for span in spans) + (1 if whole else 2)

    def column(seconds: float) -> int:
        return int(seconds / shortest * wide + 0.5)

    dots = ("." + " " * (wide - 1)) * (column(timeline.length) // wide + 1)
    rows = []
    for row in timeline.spans:
        text, at = "", 0
        for action, start, end in row:
            left, right = column(start), column(end)
            room = max(0, right - left - 1)
            text += (
                dots[at : max(at, left - 1)]
                + " " * (left > at)
                + str(action).ljust(room, "-")[:room]
                + " " * (right > left)
            )
            at = right
        rows.append([text + dots[at : column(timeline.length)]])
    return lined(rows, range(len(rows)))
