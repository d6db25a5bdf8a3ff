"""What a trace knows of clocks and versions, against what the servers themselves have counted."""

from collections import Counter
from functools import cache
from tempfile import TemporaryDirectory

import pytest

import minipar
from minipar import Cluster
from minipar.comm.tracing import tracing
from minipar.parallel.parameter_server import ASYNC, SYNC, ParameterServer, Roles, serve, ssp
from minipar.trace.served import most_stale, served
from minipar.trace.trace_file import load
from tests.parallel.parameter_server.serving import Small, sgd

WORKERS, SERVERS, SLOW, STEPS = 3, 2, 1, 8
RULES = {"sync": SYNC, "async": ASYNC, "ssp(1)": ssp(1), "ssp(3)": ssp(3)}


def work(world, rule, folder, prefetch):
    """A server's report; a worker, of which SLOW computes five times as long, gives nothing."""
    with tracing(world, folder):
        roles = Roles(world, SERVERS)
        if roles.is_server:
            return serve(roles, Small(), sgd, rule, slice_bytes=64)
        with ParameterServer(Small(), roles, sgd, slice_bytes=64, prefetch=prefetch) as ps:
            for _ in range(STEPS):
                ps.zero_grad()
                ps.model.follow(ids=[world.rank, 5])
                world.spend(1.0)
                ps.sync_gradients()
                ps.step()
    return None


@cache
def traced(name, prefetch=False, **job):
    """The trace of a run under that rule, and the reports of its servers."""
    job = job or {"cluster": Cluster(slow={SLOW: 5.0})}
    with TemporaryDirectory() as folder:
        args = RULES[name], folder, prefetch
        reports = minipar.run(work, WORKERS + SERVERS, args=args, **job)[WORKERS:]
        return load(folder), reports


def marks(trace, rank, *kinds):
    return [mark for mark in trace.ranks[rank].marks if mark.kind in kinds]


def check_counts(trace, reports):
    """The marks of all servers are what their reports say; the clocks are those of the steps."""
    for rank, report in enumerate(reports, WORKERS):
        versions = marks(trace, rank, "version")
        assert [(m.whom, m.lag, m.value - 1) for m in versions] == [
            (record.worker, record.staleness, record.applied) for record in report.records
        ]
        assert Counter(m.lag for m in versions) == report.staleness()
        assert len(versions) == report.applied == WORKERS * STEPS
        bound = most_stale(served(trace).bound, WORKERS)
        assert bound is None or max(report.staleness()) <= bound
        grown = list(dict.fromkeys(m.value for m in versions))  # in sync a round has one version
        assert grown == list(range(1, len(grown) + 1))
        assert {m.whom for m in marks(trace, rank, "gone")} == set(range(WORKERS))
    for rank in range(WORKERS):
        clocks = marks(trace, rank, "clock")
        assert [(m.whom, m.value) for m in clocks] == [(rank, n) for n in range(STEPS + 1)]


def check_staleness(trace):
    """How stale a push was follows from what its worker had pulled: that is in another file."""
    for server in range(WORKERS, WORKERS + SERVERS):
        for worker in range(WORKERS):
            pulled, stale = [], 0
            for m in marks(trace, worker, "clock", "pulled"):
                if m.kind == "pulled" and m.whom == server:
                    stale = m.value
                elif m.kind == "clock" and m.value:
                    pulled.append(stale)
            applied = [m for m in marks(trace, server, "version") if m.whom == worker]
            assert [m.value - 1 - m.lag for m in applied] == pulled


@pytest.mark.parametrize("name", RULES)
def test_marks_are_what_the_servers_count(name):
    trace, reports = traced(name)
    check_counts(trace, reports)
    check_staleness(trace)
    bound = {"sync": 0, "async": -1, "ssp(1)": 1, "ssp(3)": 3}[name]
    for rank in range(WORKERS, WORKERS + SERVERS):
        assert [m.value for m in marks(trace, rank, "bound")] == [bound]


def leads(trace, kind):
    """By how many clocks a worker was ahead of the slowest, at each mark of that kind."""
    every = sorted((m.at, rank.rank, m) for rank in trace.ranks for m in rank.marks)
    clocks, found = {}, []
    for _, rank, m in every:
        if m.kind == "clock":
            clocks[rank] = m.value
        elif m.kind == "gone":
            clocks.pop(m.whom, None)
        if m.kind == kind and rank in clocks:
            found.append(clocks[rank] - min(clocks.values()))
    return found


@pytest.mark.parametrize(("name", "s"), [("sync", 0), ("ssp(1)", 1), ("ssp(3)", 3)])
def test_nobody_gets_weights_farther_ahead_than_the_bound(name, s):
    trace, _ = traced(name)
    assert max(leads(trace, "pulled")) == s
    assert max(leads(trace, "clock")) == s + 1  # its step is over, and it is held at the next pull
    assert max(leads(traced("async")[0], "pulled")) > 3


@pytest.mark.parametrize("name", RULES)
def test_who_is_held_waits_and_the_trace_says_for_whom(name):
    trace, _ = traced(name)
    held, granted = marks(trace, WORKERS, "held"), marks(trace, WORKERS, "granted")
    assert bool(held) == (name != "async")
    assert {m.value for m in held} <= {SLOW} and SLOW not in {m.whom for m in held}
    for m in held:
        until = min(x.at for x in granted if x.whom == m.whom and x.at > m.at)
        assert until - m.at > 0.9e9  # seconds of virtual time
        waits = [s for s in trace.ranks[m.whom].spans if (s.kind, s.name) == ("wait", "rank 3")]
        assert any(s.begin <= m.at and until <= s.end for s in waits)


def test_weights_that_are_asked_for_early_count_from_when_they_are_there():
    trace, reports = traced("async", prefetch=True)
    check_counts(trace, reports)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["async", "ssp(1)"])
def test_marks_are_what_the_servers_count_on_processes(name):
    trace, reports = traced(name, backend="process")
    check_counts(trace, reports)
    check_staleness(trace)
