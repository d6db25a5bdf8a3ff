"""Is a schedule one that can be run? Proved before anything runs, in time linear in its actions.

What must hold:
1. Every stage does F of every micro-batch and chunk once, and then B once, or I and later W.
   (Or no stage does any of B, I, W: inference.) So all that a forward stores is freed again.
2. No stage waits for ever, if stages talk as the executor's do, without a buffer between them:
   - an action first receives what it needs, and waits until its neighbour has begun to send that;
   - then it computes, and begins to send its result (isend), which its neighbour takes when it
     comes to the action that needs it;
   - it does not go on while more than `unfinished` of its sends of that kind to that neighbour have
     not been taken. 1 is the executor's: having begun a send, it waits for the one before. 0 is a
     plain send, which 1F1B cannot live with.
3. What a stage receives is what it needs next: between two stages activations arrive in the order
   sent, and so do gradients. (The executor can put aside what comes early. A schedule that counts
   on that needs room for it, so it is refused.)

How rule 2 is proved: the sends and receives are played through. A stage that can go on goes on, in
whatever order; since every channel has one sender and one receiver, all orders come to one end.
Either all programs are done, or some stages wait for each other, and that is what is reported.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple, NoReturn

from minipar.errors import ScheduleError
from minipar.parallel.schedule import Action, Program, comes_from, goes_to
from minipar.parallel.schedule_grid import Place, marked_grid

RECV, RUN, SEND, SETTLE = "recv", "run", "send", "settle"


class Checked(NamedTuple):
    """What was found out about a schedule that can be run.

    peaks: per stage the largest number of forwards (of a micro-batch through a chunk) whose
    activations are stored at once. order: all actions as (stage, which), each after what it needs.
    """

    micros: int
    chunks: int
    peaks: list[int]
    order: list[Place]


class Call(NamedTuple):
    """Something that a stage does about action k: receive, run, send, wait for sends."""

    what: str
    k: int
    channel: tuple[int, int, str] = (0, 0, "")  # from, to, and "F" (activations) or "B" (gradients)
    message: tuple[int, int] = (0, 0)  # micro-batch, and the piece of the model that it is for


def check(programs: Sequence[Program], unfinished: int = 1) -> Checked:
    """Prove that a schedule can be run; what it stores, and an order in which all can be done.

    Cost:   linear in the number of actions.
    Raises: ScheduleError, with the part of the grid where it goes wrong, the cells in brackets.
    """
    micros, chunks = _extent(programs)
    trains = any(action.phase != "F" for program in programs for action in program)
    for stage in range(len(programs)):
        done = _check_order(programs, stage)
        for of in product(range(micros), range(chunks)):
            _check_end(programs, stage, Action(done.get(of, "")[-1:], *of), trains)
    order = _play(programs, chunks, unfinished)
    return Checked(micros, chunks, [_peak(p) if trains else 0 for p in programs], order)


def _peak(program: Program) -> int:
    stored = peak = 0
    for action in program:
        stored += {"F": 1, "B": -1, "I": 0, "W": -1}[action.phase]
        peak = max(peak, stored)
    return peak


# -- rule 1: each program alone --------------------------------------------------------------------


def _extent(programs: Sequence[Program]) -> tuple[int, int]:
    """How many micro-batches and chunks there are; every number below must be used, too."""
    for stage, program in enumerate(programs):
        for k, action in enumerate(program):
            if action.phase not in ("F", "B", "I", "W") or min(action[1:]) < 0:
                _wrong(programs, [(stage, k)], f"stage {stage} does {action}, which is no action.")
    actions = [action for program in programs for action in program]
    if not actions:
        raise ScheduleError("the schedule is empty: no stage does anything.")
    used = [sorted({action[i] for action in actions}) for i in (1, 2)]
    for numbers, name in zip(used, ("micro-batch", "chunk"), strict=True):
        if numbers != list(range(len(numbers))):
            lost = next(i for i, number in enumerate(numbers) if i != number)
            raise ScheduleError(
                f"no stage does {name} {lost}, but there is a {name} {numbers[-1]}."
            )
    return len(used[0]), len(used[1])


def _check_order(programs: Sequence[Program], stage: int) -> dict[tuple[int, int], str]:
    """Through a chunk a micro-batch goes F, B or F, I, W; how far each has come in the end."""
    done: dict[tuple[int, int], str] = {}
    for k, (phase, micro, chunk) in enumerate(programs[stage]):
        before = done.get((micro, chunk), "")
        done[micro, chunk] = before + phase
        if before + phase not in ("F", "FB", "FI", "FIW"):
            action = programs[stage][k]
            earlier = [Action(p, micro, chunk) for p in before]
            after = f"after {' and '.join(map(str, earlier))}" if before else "before its F"
            said = (
                f"stage {stage} does {action} {after}: it is F, then B (or I, then W), each once."
            )
            _wrong(
                programs, [*((stage, programs[stage].index(a)) for a in earlier), (stage, k)], said
            )
    return done


def _check_end(programs: Sequence[Program], stage: int, last: Action, trains: bool) -> None:
    """The last that a stage does of a micro-batch and chunk: B or W, or F where nothing trains."""
    phase, *of = last
    end = (stage, len(programs[stage]))
    lacks = {"": "F", "F": "B" if trains else "", "I": "W"}.get(phase, "")
    if lacks:
        marks = [(stage, programs[stage].index(last)), end] if phase else [end]
        freed = f": what {last} stores is never freed" if phase else ""
        _wrong(programs, marks, f"stage {stage} never does {Action(lacks, *of)}{freed}.")


# -- rules 2 and 3: the programs together ----------------------------------------------------------


def _calls(program: Program, stage: int, stages: int, chunks: int) -> Iterator[Call]:
    """What the executor does for a program, as far as others can notice it."""
    for k, action in enumerate(program):
        kind = "F" if action.phase == "F" else "B"
        piece = action.chunk * stages + stage
        src = comes_from(action, stage, stages, chunks)
        dst = goes_to(action, stage, stages, chunks)
        if src is not None:
            yield Call(RECV, k, (src, stage, kind), (action.micro, piece))
        yield Call(RUN, k)
        if dst is not None:
            message = action.micro, piece + (1 if kind == "F" else -1)
            yield Call(SEND, k, (stage, dst, kind), message)
            yield Call(SETTLE, k, (stage, dst, kind))


def _play(programs: Sequence[Program], chunks: int, unfinished: int) -> list[Place]:
    """An order of all actions in which each can be done; a wrong message or a deadlock raises."""
    stages = len(programs)
    calls = [_calls(program, i, stages, chunks) for i, program in enumerate(programs)]
    now = [next(c, None) for c in calls]
    offered: defaultdict[tuple[int, int, str], deque[Call]] = defaultdict(deque)
    order: list[Place] = []
    awake = list(reversed(range(stages)))
    while awake:
        stage = awake.pop()
        while (call := now[stage]) is not None:
            src, dst, _ = call.channel
            sends = offered[call.channel]
            if call.what == RUN:
                order.append((stage, call.k))
            elif call.what == SEND:
                sends.append(call)
                awake.append(dst)
            elif call.what == SETTLE and len(sends) > unfinished and src != dst:
                break
            elif call.what == RECV:
                if not sends:
                    break
                _expect(programs, sends.popleft(), call)
                awake.append(src)
            now[stage] = next(calls[stage], None)
    if any(call is not None for call in now):
        _report_deadlock(programs, now)
    return order


def _expect(programs: Sequence[Program], sent: Call, call: Call) -> None:
    """Rule 3."""
    src, dst, _ = call.channel
    if sent.message != call.message:
        said = (
            f"stage {dst} needs something else for {programs[dst][call.k]} than stage {src} sends "
            f"next, which is the result of its {programs[src][sent.k]}: what one stage sends to "
            "another arrives in the order in which it was sent."
        )
        _wrong(programs, [(src, sent.k), (dst, call.k)], said)


def _report_deadlock(programs: Sequence[Program], now: Sequence[Call | None]) -> NoReturn:
    """Follow who waits for whom until a stage comes up again; those between wait in a circle."""
    path: list[int] = []
    stage = next(i for i, call in enumerate(now) if call is not None)
    while stage not in path:
        path.append(stage)
        stage = _awaited(now[stage])
    circle = path[path.index(stage) :]
    waits, marks = [], []
    for stage in circle:
        call = now[stage]
        assert call is not None  # whom it waits for is not done: it would have sent, or received
        action = programs[stage][call.k]
        for_what = "what it needs from" if call.what == RECV else "its result to be taken by"
        whom = "itself" if _awaited(call) == stage else f"stage {_awaited(call)}"
        waits.append(f"stage {stage} at {action} waits for {for_what} {whom}")
        marks.append((stage, call.k))
    _wrong(programs, marks, f"the schedule comes to a halt: {'; '.join(waits)}.")


def _awaited(call: Call | None) -> int:
    assert call is not None
    return call.channel[0] if call.what == RECV else call.channel[1]


def _wrong(programs: Sequence[Program], marks: Sequence[Place], said: str) -> NoReturn:
    raise ScheduleError(f"{said}\n{marked_grid(programs, marks)}")
