"""The checker against a search through all states that stages can come into, and by hand."""

import random
import sys
from itertools import permutations, product

import pytest

from minipar.errors import ScheduleError
from minipar.parallel.schedule import Action, gpipe, named, one_f_one_b
from minipar.parallel.schedule_check import check
from minipar.parallel.schedule_grid import grid, parse


def can_run(programs, unfinished):
    """Try all orders in which stages can go on: do all of them end with all stages done?

    An independent oracle. A state is how many actions each stage has done, and what every channel
    offers that nobody has taken yet. A stage may do its next action if none of its channels offers
    more than `unfinished`, and if what the action needs is the first thing offered to it.
    """
    stages = len(programs)
    last = max(a.chunk for p in programs for a in p) * stages + stages - 1

    def step(state, i):
        at, offers = state[0], dict(state[1])
        if at[i] == len(programs[i]):
            return None
        if any(src == i != dst and len(q) > unfinished for (src, dst, _), q in offers.items()):
            return None
        phase, m, c = programs[i][at[i]]
        v, way, kind = c * stages + i, (1 if phase == "F" else -1), "F" if phase == "F" else "B"
        if phase != "W" and 0 <= v - way <= last:
            channel = ((i - way) % stages, i, kind)
            waiting = offers.get(channel, ())
            if waiting[:1] != ((m, v),):
                return None
            offers[channel] = waiting[1:]
        if phase != "W" and 0 <= v + way <= last:
            channel = (i, (i + way) % stages, kind)
            offers[channel] = (*offers.get(channel, ()), (m, v + way))
        left = tuple(sorted((channel, q) for channel, q in offers.items() if q))
        return (*at[:i], at[i] + 1, *at[i + 1 :]), left

    seen, todo = set(), [((0,) * stages, ())]
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        after = [s for i in range(stages) if (s := step(state, i)) is not None]
        if not after and (state[0] != tuple(map(len, programs)) or state[1]):
            return False
        todo += after
    return all(in_order(program) for program in programs)


def in_order(program):
    """F before B, F before I before W."""
    at = {action: k for k, action in enumerate(program)}
    pairs = [
        (a, Action({"B": "F", "I": "F", "W": "I"}[a.phase], *a[1:])) for a in at if a[0] != "F"
    ]
    return all(at[before] < at[a] for a, before in pairs)


def accepts(programs, unfinished):
    try:
        check(programs, unfinished)
    except ScheduleError:
        return False
    return True


def test_all_orders_of_two_micro_batches_on_two_stages():
    orders = [list(p) for p in permutations(parse("F0 F1 B0 B1")[0])]
    found = {0: 0, 1: 0, 2: 0}
    for programs in product(orders, orders):
        for unfinished in found:
            possible = can_run(programs, unfinished)
            assert accepts(programs, unfinished) == possible, grid(programs)
            found[unfinished] += possible
    assert 0 < found[0] < found[1] <= found[2] < len(orders) ** 2


@pytest.mark.parametrize("cells", ["F0 F0.1 B0 B0.1", "F0 I0 W0 F1 B1"])
def test_all_orders_of_chunks_and_of_halves(cells):
    orders = [list(p) for p in permutations(parse(cells)[0])]
    draw = random.Random(2)
    pairs = [draw.choices(orders, k=2) for _ in range(600)]
    pairs += [[order, order] for order in orders]
    results = [(can_run(p, 1), accepts(p, 1)) for p in pairs]
    assert all(possible == accepted for possible, accepted in results)
    assert any(possible for possible, _ in results)


@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("name", ["gpipe", "1f1b", "interleaved", "zero-bubble"])
def test_known_schedules_with_a_few_actions_exchanged(name, stages):
    """Near what can be run, there is both: what can be run, and what cannot."""
    draw, found = random.Random(stages), {True: 0, False: 0}
    chunks = 2 if name == "interleaved" else 1
    for _ in range(60):
        programs = named(name, stages, stages, chunks)
        for _ in range(draw.choice([1, 1, 2])):
            program = draw.choice(programs)
            k = draw.randrange(len(program) - 1)
            program[k], program[k + 1] = program[k + 1], program[k]
        unfinished = draw.choice([0, 1, 1])
        possible = can_run(programs, unfinished)
        assert accepts(programs, unfinished) == possible, grid(programs)
        found[possible] += 1
    assert found[False] and (found[True] or name == "gpipe")  # GPipe bears no exchange


@pytest.mark.parametrize("stages", range(1, 9))
def test_all_known_schedules_can_be_run_and_store_what_they_promise(stages):
    s = stages
    for m in range(1, 3 * s + 1):
        assert check(named("naive", s, m)).peaks == [1] * s
        assert check(named("gpipe", s, m)).peaks == [m] * s
        assert check(named("1f1b", s, m)).peaks == [min(m, s - i) for i in range(s)]
        assert check(named("zero-bubble", s, m)).peaks == [min(m, s)] * s
        assert check(named("forward", s, m)).peaks == [0] * s
        if m % s == 0:
            for v in (2, 3):
                checked = check(named("interleaved", s, m, v))
                early = [2 * (s - i - 1) + (v - 1) * s for i in range(s)]
                assert checked.peaks == [min(m * v, e + 1) for e in early]
                assert (checked.micros, checked.chunks) == (m, v)


@pytest.mark.parametrize("name", ["1f1b", "interleaved", "zero-bubble"])
def test_the_order_found_has_every_action_after_what_it_needs(name):
    programs = named(name, 3, 6, 2 if name == "interleaved" else 1)
    order = check(programs).order
    assert sorted(order) == [(i, k) for i, p in enumerate(programs) for k in range(len(p))]
    done = set()
    for stage, k in order:
        phase, m, c = programs[stage][k]
        v, last = c * 3 + stage, 3 * (2 if name == "interleaved" else 1) - 1
        assert k == 0 or (stage, k - 1) in done
        assert phase != "F" or v == 0 or ("F", m, v - 1) in done
        assert phase not in "BI" or v == last or ("B", m, v + 1) in done
        done |= {(stage, k), ("F" if phase == "F" else "B" if phase in "BI" else "W", m, v)}


def test_plain_sends_are_enough_for_gpipe_and_not_for_1f1b():
    assert check(gpipe(4, 8), unfinished=0).peaks == [8] * 4
    with pytest.raises(ScheduleError, match="comes to a halt") as error:
        check(one_f_one_b(4, 8), unfinished=0)
    first, *shown = str(error.value).splitlines()
    assert first == (
        "the schedule comes to a halt: stage 2 at F1 waits for its result to be taken by stage 3; "
        "stage 3 at B0 waits for its result to be taken by stage 2."
    )
    assert shown[-2].startswith("stage 2   F0 [F1] B0 F2") and "[B0]" in shown[-1]


# -- what is wrong is said, and marked -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (  # the last stage goes back in the other order
            "F0 F1 B1 B0\nF0 F1 B0 B1",
            "stage 0 needs something else for B1 than stage 1 sends next, which is the result of "
            "its B0: what one stage sends to another arrives in the order in which it was sent.\n"
            "stage 0   F0 F1 [B1] B0\n"
            "stage 1   F0 F1 [B0] B1",
        ),
        (  # a backward before there can be one
            "F0 B0 F1 B1\nF0 F1 B0 B1",
            "the schedule comes to a halt: stage 0 at B0 waits for what it needs from stage 1; "
            "stage 1 at F1 waits for what it needs from stage 0.\n"
            "stage 0   F0 [B0] F1 B1\n"
            "stage 1   F0 [F1] B0 B1",
        ),
        (  # the last stage forgets the last micro-batch
            "F0 F1 B0 B1\nF0 B0",
            "stage 1 never does F1.\nstage 0   F0 F1 B0  B1\nstage 1   F0 B0 [?]",
        ),
        (
            "F0 F1 B0 B1\nF0 B0 F1",
            "stage 1 never does B1: what F1 stores is never freed.\n"
            "stage 0   F0 F1 B0   B1\n"
            "stage 1   F0 B0 [F1] [?]",
        ),
        (
            "F0 I0",
            "stage 0 never does W0: what I0 stores is never freed.\nstage 0   F0 [I0] [?]",
        ),
        (
            "F0 B0 F0",
            "stage 0 does F0 after F0 and B0: it is F, then B (or I, then W), each once.\n"
            "stage 0   [F0] [B0] [F0]",
        ),
        (
            "F0 W0 I0",
            "stage 0 does W0 after F0: it is F, then B (or I, then W), each once.\n"
            "stage 0   [F0] [W0] I0",
        ),
        (
            "F0 B1 F1 B0",
            "stage 0 does B1 before its F: it is F, then B (or I, then W), each once.\n"
            "stage 0   F0 [B1] F1 B0",
        ),
        (
            "F0 F0.1 B0 B0.1",
            "the schedule comes to a halt: stage 0 at B0 waits for what it needs from itself.\n"
            "stage 0   F0 F0.1 [B0] B0.1",
        ),
        ("F0 B0 F2 B2", "no stage does micro-batch 1, but there is a micro-batch 2."),
        ("F0.1 B0.1", "no stage does chunk 0, but there is a chunk 1."),
        ("stage 0\nstage 1", "the schedule is empty: no stage does anything."),
    ],
)
def test_the_error_says_what_is_wrong_and_marks_it(text, says):
    with pytest.raises(ScheduleError) as error:
        check(parse(text))
    assert str(error.value) == says


def test_what_is_no_action_is_named():
    with pytest.raises(ScheduleError, match="stage 0 does G0, which is no action"):
        check([[Action("F", 0), Action("G", 0)]])
    with pytest.raises(ScheduleError, match="stage 0 does F-1, which is no action"):
        check([[Action("F", -1)]])


def test_one_stage_is_its_own_neighbour_and_sends_nothing():
    assert check(parse("F0 F1 F2 F0.1 F1.1 F2.1 B0.1 B1.1 B2.1 B0 B1 B2")).peaks == [6]


def test_inference_stores_nothing_but_a_stage_that_trains_alone_is_wrong():
    assert check(parse("F0 F1\nF0 F1")).peaks == [0, 0]
    with pytest.raises(ScheduleError, match="stage 0 never does B0"):
        check(parse("F0\nF0 B0"))


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "interleaved", "zero-bubble"])
def test_the_work_grows_with_the_number_of_actions(name):
    """Counted in function calls, which are the same on every machine."""

    def calls(stages, micros):
        programs, count = named(name, stages, micros, 2 if name == "interleaved" else 1), 0

        def profile(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            check(programs)
        finally:
            sys.setprofile(before)
        return count / sum(map(len, programs))

    assert calls(4, 16) == pytest.approx(calls(4, 128), rel=0.15)
    assert calls(4, 32) == pytest.approx(calls(32, 32), rel=0.25)
