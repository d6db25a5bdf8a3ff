"""The simulator against hand-made timelines, the formulas, and times that are relaxed."""

import random
import sys
from itertools import pairwise

import pytest

from minipar import cost
from minipar.errors import ScheduleError, UsageError
from minipar.parallel import schedule_time
from minipar.parallel.schedule import NAMES, gpipe, named, one_f_one_b, zero_bubble
from minipar.parallel.schedule_grid import parse
from minipar.parallel.schedule_time import Times, drawn, simulate


def starts(timeline, stage):
    return {str(span.action): span.start for span in timeline.spans[stage]}


def test_gpipe_of_two_stages_by_hand():
    """F0 F1 on stage 0 at 0 and 1; one later on stage 1, then its backwards, then stage 0's."""
    timeline = simulate(gpipe(2, 2), Times(forward=1, backward=3))
    assert starts(timeline, 0) == {"F0": 0, "F1": 1, "B1": 6, "B0": 9}
    assert starts(timeline, 1) == {"F0": 1, "F1": 2, "B1": 3, "B0": 6}
    assert timeline.length == 12 and timeline.bubble == pytest.approx(1 - 16 / 24)
    assert timeline.peaks == [2, 2]


def test_a_slow_stage_holds_up_the_others():
    timeline = simulate(gpipe(2, 3), Times(forward=[1, 2], backward=[1, 2]))
    assert starts(timeline, 1) == {"F0": 1, "F1": 3, "F2": 5, "B2": 7, "B1": 9, "B0": 11}
    assert starts(timeline, 0) == {"F0": 0, "F1": 1, "F2": 2, "B2": 9, "B1": 11, "B0": 13}
    assert timeline.bubble == pytest.approx(1 - 18 / 28)


def test_a_slow_link_carries_one_message_at_a_time_in_each_direction():
    timeline = simulate(gpipe(2, 2), Times(forward=1, backward=1, link=3))
    assert starts(timeline, 1) == {"F0": 4, "F1": 7, "B1": 8, "B0": 9}  # at 1 + 3, and 3 later
    assert starts(timeline, 0) == {"F0": 0, "F1": 1, "B1": 12, "B0": 15}


def test_links_have_their_own_times():
    timeline = simulate(parse("F0 B0\n" * 3), Times(1, 1, link=[2, 5, 0]))
    assert [starts(timeline, i)["F0"] for i in range(3)] == [0, 3, 9]
    assert [starts(timeline, i)["B0"] for i in range(3)] == [19, 16, 10]


def test_the_last_link_goes_round_to_the_next_chunk():
    timeline = simulate(parse("F0 F0.1 B0.1 B0\n" * 2), Times(2, 2, link=[1, 10]))
    assert starts(timeline, 0) == {"F0": 0, "F0.1": 13, "B0.1": 18, "B0": 31}
    assert starts(timeline, 1) == {"F0": 2, "F0.1": 15, "B0.1": 16, "B0": 29}


def test_recomputation_does_not_wait_for_the_gradient():
    """Stage 0 has done it when B0 of stage 1 comes; without waiting it would be done at 5."""
    timeline = simulate(gpipe(2, 1), Times(forward=1, backward=2, recompute=1))
    assert starts(timeline, 1) == {"F0": 1, "R0": 2, "B0": 3}
    assert starts(timeline, 0) == {"F0": 0, "R0": 1, "B0": 5}
    assert timeline.length == 7 and timeline.bubble == pytest.approx(1 - 8 / 14)


def test_w_is_half_of_backward_unless_it_is_said():
    timeline = simulate(zero_bubble(1, 1), Times(1, 3))
    assert starts(timeline, 0) == {"F0": 0, "I0": 1, "W0": 2.5} and timeline.length == 4
    assert starts(simulate(zero_bubble(1, 1), Times(1, 3, 1)), 0) == {"F0": 0, "I0": 1, "W0": 3}


# -- by formula ------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("times", [Times(1, 2), Times(2.5, 2), Times(1, 1, 0.25)])
def test_bubble_and_activations_are_those_of_the_formulas(s, times):
    w = times.backward / 2 if times.weight is None else times.weight
    for m in {1, 2, s, s + 1, 3 * s}:
        for name in NAMES:
            if name == "interleaved" and m % s:
                continue
            v = 3 if name == "interleaved" else 1
            timeline = simulate(named(name, s, m, v), times)
            split = times.forward, times.backward - w, w
            bubble, stored = cost.of_schedule(name, s, m, v, split)
            assert timeline.bubble == pytest.approx(bubble, abs=1e-12), name
            assert [peak / v for peak in timeline.peaks] == pytest.approx(stored)


def test_the_textbook():
    """(s-1)/(m+s-1) for GPipe and 1F1B, (s-1)/(v·m+s-1) interleaved, a third for zero-bubble."""
    s, m = 4, 8
    for name, v, expected in [
        *(("gpipe", 1, 3 / 11), ("1f1b", 1, 3 / 11), ("naive", 1, 3 / 4), ("forward", 1, 3 / 11)),
        *(("interleaved", 2, 3 / 19), ("interleaved", 4, 3 / 35), ("zero-bubble", 1, 1 / 9)),
    ]:
        assert simulate(named(name, s, m, v)).bubble == pytest.approx(expected), name


# -- against an independent oracle -----------------------------------------------------------------


def relaxed(programs, forward, backward, link):
    """Starts, raised from 0 until every action begins after what it needs. F and B, one chunk."""
    stages = len(programs)
    start = {(i, a): 0.0 for i, p in enumerate(programs) for a in p}

    def end(i, a):
        return start[i, a] + (forward if a.phase == "F" else backward)[i]

    def arrival(i, a, way):
        """When the message of stage i about a is there: the link may be busy with those before."""
        line = link[i if way > 0 else i - 1]
        mine = [x for x in programs[i][: programs[i].index(a) + 1] if x.phase == a.phase]
        free = 0.0
        for x in mine:
            free = max(free, end(i, x)) + line
        return free

    changed = True
    while changed:
        changed = False
        for i, program in enumerate(programs):
            for k, a in enumerate(program):
                after = [end(i, program[k - 1])] if k else []
                if a.phase == "F" and i > 0:
                    after.append(arrival(i - 1, a, 1))
                if a.phase == "B" and i < stages - 1:
                    after.append(arrival(i + 1, a, -1))
                if max(after, default=0.0) > start[i, a]:
                    start[i, a] = max(after)
                    changed = True
    return [[start[i, a] for a in program] for i, program in enumerate(programs)]


@pytest.mark.parametrize("name", ["naive", "gpipe", "1f1b"])
def test_any_times_are_the_earliest_that_fit(name):
    draw = random.Random(name)
    for _ in range(25):
        s, m = draw.randrange(1, 5), draw.randrange(1, 7)
        programs = named(name, s, m)
        forward, backward, link = ([draw.uniform(0, 3) for _ in range(s)] for _ in range(3))
        timeline = simulate(programs, Times(forward, backward, link=link))
        found = [[span.start for span in row] for row in timeline.spans]
        for row, expected in zip(found, relaxed(programs, forward, backward, link)):
            assert row == pytest.approx(expected)


def test_all_starts_and_ends_keep_to_the_schedule():
    """In the program's order, without overlap, and each as long as it takes."""
    programs = named("interleaved", 4, 8, 2)
    timeline = simulate(programs, Times([1, 2, 3, 4], [2, 2, 2, 6], link=0.3))
    for i, (row, program) in enumerate(zip(timeline.spans, programs)):
        assert [span.action for span in row] == program
        assert all(a.end <= b.start for a, b in pairwise(row))
        for (phase, *_), start, end in row:
            takes = [1, 2, 3, 4][i] if phase == "F" else [2, 2, 2, 6][i]
            assert end - start == pytest.approx(takes / 2)


@pytest.mark.slow
def test_a_schedule_of_64_stages_and_1024_micro_batches_is_no_trouble():
    timeline = simulate(one_f_one_b(64, 1024))
    assert timeline.bubble == pytest.approx(63 / (1024 + 63))


def test_the_work_grows_with_the_number_of_actions():
    """Counted in function calls, which are the same on every machine."""

    def calls(stages, micros):
        programs, count = one_f_one_b(stages, micros), 0

        def profile(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            simulate(programs)
        finally:
            sys.setprofile(before)
        return count / sum(map(len, programs))

    assert calls(4, 16) == pytest.approx(calls(4, 128), rel=0.15)
    assert calls(4, 32) == pytest.approx(calls(32, 32), rel=0.25)


# -- as text, and what is refused ------------------------------------------------------------------


def test_a_timeline_as_text_is_the_picture_at_the_top_of_the_file():
    timeline = simulate(one_f_one_b(2, 3))
    above, below = drawn(timeline).splitlines()
    assert above == "stage 0   F0 F1 .  .  B0--- F2 B1--- .  B2---"
    assert below == "stage 1   .  F0 B0--- F1 B1--- F2 B2--- .  ."
    assert f"    {above}\n    {below}" in schedule_time.__doc__
    assert timeline.length == 12 and timeline.bubble == pytest.approx(0.25)


@pytest.mark.parametrize("name", NAMES)
def test_a_timeline_is_a_grid_too(name):
    """With times that are no multiples of each other, and links, too."""
    draw = random.Random(name)
    programs = named(name, 4, 12, 2 if name == "interleaved" else 1)
    for _ in range(20):
        times = Times(
            *([draw.uniform(1, 3) for _ in range(4)] for _ in range(2)), link=draw.random()
        )
        timeline = simulate(programs, times)
        assert parse(drawn(timeline)) == programs
        columns = [len(line) for line in drawn(timeline).splitlines()]
        assert max(columns) - min(columns) <= 6  # spaces at the end are cut off


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (Times(forward=[1, 2, 3]), "forward has 3 times; give one, or one for each of 2 stages."),
        (Times(backward=-1), "backward is -1: a time is 0 or more."),
        (Times(link=float("nan")), "link is nan: a time is 0 or more."),
        (Times(backward=1, weight=2), "weight is a part of backward: it cannot take longer."),
    ],
)
def test_impossible_times_are_refused(times, says):
    with pytest.raises(UsageError, match=says):
        simulate(gpipe(2, 2), times)


def test_only_what_can_be_run_gets_times():
    with pytest.raises(ScheduleError, match="never does B1"):
        simulate(parse("F0 F1 B0\nF0 F1 B0 B1"))


def test_nothing_that_takes_time_is_no_bubble():
    assert simulate(gpipe(2, 2), Times(0, 0)).bubble == 0
    assert drawn(simulate(gpipe(2, 2), Times(0, 0))).startswith("stage 0")
