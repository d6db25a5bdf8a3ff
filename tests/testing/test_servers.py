"""The runs on which parameter servers are held pass what is right, and find what is wrong."""

import math

import pytest

from minipar.parallel.parameter_server import ASYNC, SYNC, Report, ssp
from minipar.parallel.parameter_server.rules import Rule
from minipar.parallel.parameter_server.store import Store
from minipar.testing import servers
from minipar.testing.servers import PUSHES, difference, replay
from minipar.testing.strategies import WrongStrategy
from minipar.verify import STRATEGIES, verify


def test_rows_count_workers_and_servers():
    (row,) = verify(["ps-ssp"], ["local"], [3])
    assert row["ok"] and (row["layout"], row["ranks"]) == ("ps=3+2", 5)
    assert {"ps-sync", "ps-async"} < set(STRATEGIES)


@pytest.mark.parametrize("rule", [SYNC, ASYNC], ids=str)
def test_what_is_right_passes(rule):
    assert difference(2, "local", rule).error < 1e-10


def test_the_order_of_processes_is_done_again():
    assert difference(2, "process", ASYNC, PUSHES[1:]).error < 1e-10


def test_pushes_are_stale_and_that_is_seen(monkeypatch):
    """The same pushes in the same order, but as if each had seen all others before it."""
    stale = []

    def as_if_fresh(case, workers, reports):
        for report in reports:
            records, report.numbers = report.records, Report().numbers
            stale.extend(record.staleness for record in records)
            for record in records:
                report.note(record._replace(pulled=record.applied))
        return replay(case, workers, reports)

    monkeypatch.setattr(servers, "replay", as_if_fresh)
    found = difference(3, "local", ASYNC, PUSHES[:1])
    assert found.error > 1e-3 and "momentum: " in found.where
    assert max(stale) > 2


def test_a_push_that_counts_twice_is_found(monkeypatch):
    update, calls = Store.update, []

    def twice(self, gradients, lr, factor=1.0):
        calls.append(lr)
        if len(calls) == 7:
            lr *= 2
        update(self, gradients, lr, factor)

    monkeypatch.setattr(Store, "update", twice)
    assert difference(2, "local", ASYNC, PUSHES[:1]).error > 1e-6


def test_records_that_cannot_be_are_found(monkeypatch):
    note = Report.note
    monkeypatch.setattr(
        Report, "note", lambda *a: note(a[0], a[1]._replace(pulled=a[1].applied + 1))
    )
    with pytest.raises(WrongStrategy, match="cannot have been"):
        difference(1, "local", ASYNC, PUSHES[:1])


def test_who_is_too_far_ahead_is_found(monkeypatch):
    monkeypatch.setattr(Rule, "may_pull", lambda self, clock, clocks: True)
    found = difference(2, "local", ssp(1), PUSHES[:1])
    assert (found.error, found.where) == (math.inf, "momentum: how far a worker was ahead")
