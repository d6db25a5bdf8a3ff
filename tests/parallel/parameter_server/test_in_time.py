"""One worker of four computes 5 times as long: what the rules make of it, in virtual time."""

import pytest

import minipar
from minipar.parallel.parameter_server import ASYNC, SYNC, ParameterServer, Roles, serve, ssp
from tests.parallel.parameter_server.serving import Small, sgd

cluster = pytest.importorskip("minipar.comm.cluster")

WORKERS, SLOW, PUSHES = 4, 5.0, 40


def when_applied(world):
    """An optimizer that notes the time of each of its steps."""
    times = []

    def make(named):
        optimizer = sgd(named)
        step = optimizer.step

        def noted():
            step()
            times.append(world.now_ns() / 1e9)

        optimizer.step = noted
        return optimizer

    return make, times


def work(world, rule):
    """A server gives the times of its updates and its report; a worker steps of a second each."""
    roles = Roles(world)
    if roles.is_server:
        make, times = when_applied(world)
        return times, serve(roles, Small(), make, rule)
    with ParameterServer(Small(), roles, sgd) as ps:
        for _ in range(PUSHES if rule == ASYNC else PUSHES // 2):
            ps.zero_grad()
            ps.model.follow()
            world.spend(1.0)
            ps.sync_gradients()
            ps.step()
    return None


def run(rule):
    slow = cluster.Cluster(slow={1: SLOW})
    return minipar.run(work, WORKERS + 1, args=(rule,), cluster=slow)[-1]


def test_async_does_not_wait_for_the_straggler():
    rounds, report = run(SYNC)
    assert set(report.staleness()) == {0}
    sync_s = rounds[PUSHES // WORKERS - 1]
    assert sync_s == pytest.approx(PUSHES / WORKERS * SLOW, rel=0.01)
    async_s = run(ASYNC)[0][PUSHES - 1]
    # In a second the three make one push each, the slow one a fifth: 40 / 3.2 seconds.
    assert async_s == pytest.approx(13.0, rel=0.05)
    assert sync_s >= 2.5 * async_s


def test_ssp_waits_when_it_must():
    found = {s: run(ssp(s)) for s in (1, 2, 4)}
    for s, (_, report) in found.items():
        assert report.most_ahead == s
    assert run(ASYNC)[1].most_ahead > 4
    first = [times[15] for times, _ in found.values()]
    assert first[0] > first[1] > first[2]


def test_every_run_is_the_same_to_the_event():
    (times, a), (again, b) = run(ASYNC), run(ASYNC)
    assert times == again
    assert a == b


def test_the_others_go_on_when_a_worker_is_declared_lost():
    """Worker 1, one of four, is gone in the middle of its fourth second."""
    lost = cluster.Cluster(lost={1: 3.5})
    found, again = (
        minipar.run(work, WORKERS + 1, args=(ASYNC,), cluster=lost, on_lost="report")
        for _ in range(2)
    )
    assert str(found[1]) == "rank 1 was lost at 3500 ms of virtual time"
    times, report = found[-1]
    assert len(times) == 3 * PUSHES + 3
    assert times == again[-1][0] and report == again[-1][1]
