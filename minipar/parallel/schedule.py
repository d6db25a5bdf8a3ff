"""Pipeline schedules: what each stage does, in which order, as plain lists.

    one_f_one_b(stages=4, micros=6)              time →
    stage 0   F0 F1 F2 F3 .  .  .  B0 F4 B1 F5 B2 .  B3 .  B4 .  B5
    stage 1   .  F0 F1 F2 .  .  B0 F3 B1 F4 B2 F5 B3 .  B4 .  B5 .
    stage 2   .  .  F0 F1 .  B0 F2 B1 F3 B2 F4 B3 F5 B4 .  B5 .  .
    stage 3   .  .  .  F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 .  .  .

A model is cut into stages, a batch into micro-batches. `F3` carries micro-batch 3 forward through
a stage, `B3` its gradient back. A schedule says only the order of these on each stage. The dots,
where a stage waits, come out of that: an action begins when what it needs is there.

So a schedule is data. One executor runs all of them, one checker proves them, one simulator gives
them times, one drawer draws them; and each of those that have names is a few lines here.

With several chunks a stage holds several pieces of the model, dealt out in turn: chunk c of stage
s is piece c·stages + s, and the last stage passes piece c·stages + stages-1 on to stage 0.

Letters: s stages, m micro-batches, v chunks per stage.
"""

from __future__ import annotations

from typing import NamedTuple

from minipar.errors import UsageError

NAMES = ("naive", "gpipe", "1f1b", "interleaved", "zero-bubble", "forward")


class Action(NamedTuple):
    """One thing that a stage does: a phase, for one micro-batch, with one of its chunks.

    Phases: F forward, B backward. Or the two halves of B: I the gradient by the input, which the
    neighbour waits for, and W the gradient by the weights, which nobody waits for.
    """

    phase: str
    micro: int
    chunk: int = 0

    def __str__(self) -> str:
        return f"{self.phase}{self.micro}" + (f".{self.chunk}" if self.chunk else "")


Program = list[Action]  # of one stage, in order


def naive(stages: int, micros: int) -> list[Program]:
    """One micro-batch after the other, each there and back: one stage works at a time.

    Bubble (s-1)/s. A stage stores the activations of one micro-batch. With micros = 1 it is
    layer-wise model parallelism: the whole batch goes through stage by stage.
    """
    _at_least_one(stages, micros)
    program = [Action(phase, m) for m in range(micros) for phase in "FB"]
    return [list(program) for _ in range(stages)]


def gpipe(stages: int, micros: int) -> list[Program]:
    """All forwards, then all backwards, the last micro-batch first.

    Bubble (s-1)/(m+s-1). A stage stores the activations of all m micro-batches.
    Paper: Huang et al. 2019, figure 2c.
    """
    _at_least_one(stages, micros)
    forward = [Action("F", m) for m in range(micros)]
    backward = [Action("B", m) for m in reversed(range(micros))]
    return [forward + backward for _ in range(stages)]


def one_f_one_b(stages: int, micros: int) -> list[Program]:
    """As many forwards as there are stages below, then one forward, one backward in turn.

    Bubble (s-1)/(m+s-1), as GPipe; but stage i stores the activations of min(m, s-i) micro-batches.
    Paper: Narayanan et al. 2019 (PipeDream); with the flush at the end, Narayanan et al. 2021.
    """
    _at_least_one(stages, micros)
    forward = [Action("F", m) for m in range(micros)]
    backward = [Action("B", m) for m in range(micros)]
    return [_in_turn(forward, backward, early=stages - i - 1) for i in range(stages)]


def interleaved(stages: int, micros: int, chunks: int) -> list[Program]:
    """1F1B with v chunks per stage: s micro-batches go through chunk 0, then through chunk 1, ...

    Bubble (s-1)/(v·m+s-1), for v times as many messages. Stage i stores the activations of
    min(v·m, 2(s-i-1) + (v-1)·s + 1) chunks, each 1/v of a stage.
    Raises UsageError if the stages do not divide the micro-batches: they go in groups of s.
    Paper: Narayanan et al. 2021, section 2.2.
    """
    _at_least_one(stages, micros)
    _refuse_what_does_not_interleave(stages, micros, chunks)
    groups = range(0, micros, stages)
    order = [(g + m, c) for g in groups for c in range(chunks) for m in range(stages)]
    forward = [Action("F", m, c) for m, c in order]
    backward = [Action("B", m, chunks - 1 - c) for m, c in order]
    early = [2 * (stages - i - 1) + (chunks - 1) * stages for i in range(stages)]
    return [_in_turn(forward, backward, early[i]) for i in range(stages)]


def zero_bubble(stages: int, micros: int) -> list[Program]:
    """ZB-H1: 1F1B with B cut in two; stage i does W i micro-batches late, to fill its bubble.

    A stage waits (s-1)(f+b-w), where 1F1B has (s-1)(f+b+w), if F, I and W take f, b and w: a third
    if these are equal. It stores the activations of min(m, s) micro-batches, as stage 0 of 1F1B.
    Paper: Qi et al. 2023, section 2.1.
    """
    programs = []
    for late, program in enumerate(one_f_one_b(stages, micros)):
        cut: Program = []
        for phase, m, _ in program:
            cut.append(Action("I" if phase == "B" else "F", m))
            if phase == "B" and m >= late:
                cut.append(Action("W", m - late))
        left = range(max(0, micros - late), micros)
        programs.append(cut + [Action("W", m) for m in left])
    return programs


def forward_only(stages: int, micros: int) -> list[Program]:
    """Inference: every micro-batch forward, none back. Bubble (s-1)/(m+s-1); nothing is stored."""
    _at_least_one(stages, micros)
    return [[Action("F", m) for m in range(micros)] for _ in range(stages)]


def named(name: str, stages: int, micros: int, chunks: int = 1) -> list[Program]:
    """The schedule of that name, one of NAMES; only interleaved has more than one chunk."""
    if name == "interleaved":
        return interleaved(stages, micros, chunks)
    if chunks != 1:
        raise UsageError(f"{name} has one chunk per stage, not {chunks}: several are interleaved.")
    made = {"naive": naive, "gpipe": gpipe, "1f1b": one_f_one_b}
    made |= {"zero-bubble": zero_bubble, "forward": forward_only}
    if name not in made:
        *trained, alone = NAMES
        raise UsageError(
            f"there is no schedule {name}; there are {', '.join(trained)}, and {alone}, which has "
            "no backward."
        )
    return made[name](stages, micros)


def comes_from(action: Action, stage: int, stages: int, chunks: int = 1) -> int | None:
    """The stage whose message an action waits for; None if it needs none (the batch, the loss)."""
    piece = action.chunk * stages + stage
    if action.phase == "F":
        return (stage - 1) % stages if piece > 0 else None
    return (stage + 1) % stages if action.phase in "BI" and piece < stages * chunks - 1 else None


def goes_to(action: Action, stage: int, stages: int, chunks: int = 1) -> int | None:
    """The stage that an action's result is sent to; None if it stays."""
    piece = action.chunk * stages + stage
    if action.phase == "F":
        return (stage + 1) % stages if piece < stages * chunks - 1 else None
    return (stage - 1) % stages if action.phase in "BI" and piece > 0 else None


def _in_turn(forward: Program, backward: Program, early: int) -> Program:
    """So many forwards early; then forward and backward in turn; then the backwards left over."""
    early = min(early, len(forward))
    turns = zip(forward[early:], backward, strict=False)
    steady = [action for pair in turns for action in pair]
    return forward[:early] + steady + backward[len(forward) - early :]


def _at_least_one(stages: int, micros: int) -> None:
    if stages < 1 or micros < 1:
        raise UsageError(
            f"a schedule of {stages} stages and {micros} micro-batches: there must be one of each "
            "at least."
        )


def _refuse_what_does_not_interleave(stages: int, micros: int, chunks: int) -> None:
    if chunks < 2:
        raise UsageError(
            f"interleaved needs 2 or more chunks per stage, not {chunks}: with one it is 1f1b."
        )
    if micros % stages:
        raise UsageError(
            f"interleaved sends micro-batches through the chunks in groups of {stages}, one for "
            f"each stage; {micros} micro-batches are not whole groups: take a multiple of {stages}."
        )
