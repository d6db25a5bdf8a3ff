"""The schedules as their papers draw them, written out by hand, and what refuses to be one."""

import re

import pytest

from minipar.errors import UsageError
from minipar.parallel import schedule
from minipar.parallel.schedule import Action, comes_from, goes_to, named, one_f_one_b
from minipar.parallel.schedule_grid import grid, parse
from minipar.parallel.schedule_time import Times, drawn, simulate

DRAWN = {
    ("naive", 2, 2, 1): """
        F0 B0 F1 B1
        F0 B0 F1 B1""",
    ("gpipe", 4, 4, 1): """                          # Huang et al. 2019, figure 2c
        F0 F1 F2 F3 B3 B2 B1 B0
        F0 F1 F2 F3 B3 B2 B1 B0
        F0 F1 F2 F3 B3 B2 B1 B0
        F0 F1 F2 F3 B3 B2 B1 B0""",
    ("1f1b", 4, 8, 1): """                           # Narayanan et al. 2021, figure 4
        F0 F1 F2 F3 B0 F4 B1 F5 B2 F6 B3 F7 B4 B5 B6 B7
        F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 F6 B4 F7 B5 B6 B7
        F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 F6 B5 F7 B6 B7
        F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7""",
    ("interleaved", 2, 4, 2): """
        F0 F1 F0.1 F1.1 F2   B0.1 F3   B1.1 F2.1 B0   F3.1 B1   B2.1 B3.1 B2 B3
        F0 F1 F0.1 B0.1 F1.1 B1.1 F2   B0   F3   B1   F2.1 B2.1 F3.1 B3.1 B2 B3""",
    ("zero-bubble", 4, 6, 1): """                    # Qi et al. 2023, figure 3 above, cut to 6
        F0 F1 F2 F3 I0 W0 F4 I1 W1 F5 I2 W2 I3 W3 I4 W4 I5 W5
        F0 F1 F2 I0 F3 I1 W0 F4 I2 W1 F5 I3 W2 I4 W3 I5 W4 W5
        F0 F1 I0 F2 I1 F3 I2 W0 F4 I3 W1 F5 I4 W2 I5 W3 W4 W5
        F0 I0 F1 I1 F2 I2 F3 I3 W0 F4 I4 W1 F5 I5 W2 W3 W4 W5""",
    ("forward", 2, 3, 1): """
        F0 F1 F2
        F0 F1 F2""",
}


@pytest.mark.parametrize("which", DRAWN)
def test_each_schedule_is_what_its_paper_draws(which):
    assert named(*which) == parse(DRAWN[which])


@pytest.mark.parametrize(("stages", "micros"), [(1, 1), (1, 3), (2, 1), (4, 2), (5, 12)])
def test_every_micro_batch_goes_through_every_chunk_once(stages, micros):
    for name in schedule.NAMES:
        chunks = 3 if name == "interleaved" else 1
        m = micros * stages if name == "interleaved" else micros
        phases = {"zero-bubble": "FIW", "forward": "F"}.get(name, "FB")
        everything = {Action(p, i, c) for p in phases for i in range(m) for c in range(chunks)}
        for program in named(name, stages, m, chunks):
            assert set(program) == everything and len(program) == len(everything), name


def test_fewer_micro_batches_than_stages_make_1f1b_shorter_and_nothing_else():
    assert one_f_one_b(4, 2) == parse("F0 F1 B0 B1\n" * 3 + "F0 B0 F1 B1")


@pytest.mark.parametrize(("stages", "chunks"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 4)])
def test_neighbours_are_the_pieces_before_and_behind(stages, chunks):
    """Piece v lies on stage v mod s; the batch enters the first one, the loss leaves the last."""
    holder = [v % stages for v in range(stages * chunks)]
    for v, stage in enumerate(holder):
        before = holder[v - 1] if v > 0 else None
        behind = holder[v + 1] if v + 1 < len(holder) else None
        ends = {"F": (before, behind), "B": (behind, before), "I": (behind, before)}
        for phase, (src, dst) in {**ends, "W": (None, None)}.items():
            action = Action(phase, 0, v // stages)
            assert comes_from(action, stage, stages, chunks) == src
            assert goes_to(action, stage, stages, chunks) == dst


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (("gpipe", 0, 4), "a schedule of 0 stages and 4 micro-batches: there must be one of each"),
        (("interleaved", 4, 6, 2), "6 micro-batches are not whole groups: take a multiple of 4."),
        (("interleaved", 4, 4, 1), "interleaved needs 2 or more chunks per stage, not 1"),
        (("gpipe", 4, 4, 2), "gpipe has one chunk per stage, not 2: several are interleaved."),
        (("gpip", 4, 4), "there is no schedule gpip; there are naive, gpipe, 1f1b, interleaved"),
    ],
)
def test_what_is_no_schedule_is_one_sentence(ask, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        named(*ask)


def test_the_picture_at_the_top_of_the_file_is_what_the_simulator_draws():
    timeline = simulate(one_f_one_b(4, 6), Times(forward=1, backward=1))
    for line in drawn(timeline).splitlines():
        assert f"    {line}\n" in schedule.__doc__


# -- 1F1B and its classic mistakes -----------------------------------------------------------------


def is_1f1b(programs, micros):
    """By what it promises: the bubble, and how many activations live on each stage."""
    s, timeline = len(programs), simulate(programs)
    lives = timeline.peaks == [min(micros, s - i) for i in range(s)]
    return lives and timeline.bubble == pytest.approx((s - 1) / (micros + s - 1))


def with_warm_up(stages, micros, more):
    """1F1B in which stage i has so many more (or fewer) forwards before its first backward."""
    programs = []
    for i in range(stages):
        early = min(micros, max(0, stages - 1 - i + more.get(i, 0)))
        forward = [f"F{m}" for m in range(micros)]
        backward = [f"B{m}" for m in range(micros)]
        turns = [a for pair in zip(forward[early:], backward) for a in pair]
        programs.append(" ".join(forward[:early] + turns + backward[micros - early :]))
    return parse("\n".join(programs))


@pytest.mark.parametrize("stages", [2, 3, 4, 6])
def test_one_warm_up_forward_too_many_or_too_few_is_noticed(stages):
    micros = 3 * stages
    assert with_warm_up(stages, micros, {}) == one_f_one_b(stages, micros)
    assert is_1f1b(one_f_one_b(stages, micros), micros)
    for more in (1, -1):
        assert not is_1f1b(with_warm_up(stages, micros, dict.fromkeys(range(stages), more)), micros)
        for stage in range(stages - 1):  # on one stage alone, too
            assert not is_1f1b(with_warm_up(stages, micros, {stage: more}), micros)


def test_1f1b_that_is_gpipe_in_disguise_is_known_by_its_live_activations():
    """The bubble is the same, and every backward is in the order of 1F1B."""
    disguised = parse("\n".join(["F0 F1 F2 F3 F4 F5 B0 B1 B2 B3 B4 B5"] * 3))
    assert simulate(disguised).bubble == pytest.approx(simulate(one_f_one_b(3, 6)).bubble)
    assert simulate(disguised).peaks == [6, 6, 6] and not is_1f1b(disguised, 6)


def test_a_grid_of_a_schedule_reads_well():
    assert grid(one_f_one_b(2, 2)) == "stage 0   F0 F1 B0 B1\nstage 1   F0 B0 F1 B1"
