"""Clocks, versions and staleness of a run that is written down here by hand."""

import pytest

from minipar.errors import UsageError
from minipar.spans import Mark, Span
from minipar.trace.served import ANY, most_stale, pushes, served, value_at
from minipar.trace.trace_file import RankTrace, Trace, nothing_of

# ssp(1), two workers, one server. Worker 0 is quick, and waits from 200 to 500.
MARKS = (
    [
        *(Mark("clock", 0, 0, 0), Mark("pulled", 10, 2, 0), Mark("clock", 100, 0, 1)),
        *(Mark("pulled", 110, 2, 1), Mark("clock", 200, 0, 2), Mark("pulled", 510, 2, 3)),
        Mark("clock", 600, 0, 3),
    ],
    [Mark("clock", 0, 1, 0), Mark("pulled", 10, 2, 0), Mark("clock", 500, 1, 1)],
    [
        *(Mark("bound", 0, 2, 1), Mark("version", 105, 0, 1, 0), Mark("version", 205, 0, 2, 0)),
        *(Mark("held", 205, 0, 1, 2), Mark("granted", 502, 0, 2), Mark("version", 505, 1, 3, 2)),
        *(Mark("gone", 550, 1, 1), Mark("version", 605, 0, 4, 1), Mark("gone", 700, 0, 3)),
    ],
)


def trace_of(marks, spans=((), (), ())):
    ranks = [
        RankTrace(r, 0, 1000, list(spans[r]), [], [], [], [], [], {}, marks[r])
        for r in range(len(marks))
    ]
    return Trace("local", True, ranks, 0)


TRACE = trace_of(MARKS, ([Span("wait", "rank 2", 200, 510)], [], []))


def test_clocks_are_the_workers_and_versions_the_servers():
    found = served(TRACE)
    assert found.bound == 1 and found.gone == {0: 700, 1: 550}
    assert found.clocks == {0: [(0, 0), (100, 1), (200, 2), (600, 3)], 1: [(0, 0), (500, 1)]}
    assert found.versions == {2: [(105, 1), (205, 2), (505, 3), (605, 4)]}


def test_the_slowest_is_the_lowest_clock_of_those_who_are_on_it():
    assert served(TRACE).slowest() == [(0, 0), (500, 1), (550, 2), (600, 3)]


def test_the_value_at_a_time():
    steps = served(TRACE).clocks[0]
    assert [value_at(steps, when) for when in (-1, 0, 99, 100, 5000)] == [0, 0, 0, 1, 3]


def test_pushes_by_worker_in_a_window():
    assert pushes(TRACE, 0, 1000) == {0: {0: 2, 1: 1}, 1: {2: 1}}
    assert pushes(TRACE, 105, 205) == {0: {0: 1}}


def test_a_worker_that_was_killed_has_no_clock_but_its_pushes_count():
    killed = Trace("process", False, [TRACE.ranks[0], nothing_of(1), TRACE.ranks[2]], 0)
    assert set(served(killed).clocks) == {0} and set(served(killed).gone) == {0}
    assert pushes(killed, 0, 1000)[1] == {2: 1}


def test_without_servers_it_says_so():
    with pytest.raises(UsageError, match="no clocks of parameter servers"):
        served(trace_of(([], [])))


def test_the_rule_bounds_staleness():
    assert [most_stale(bound, 3) for bound in (0, 1, 2, ANY)] == [0, 6, 10, None]
