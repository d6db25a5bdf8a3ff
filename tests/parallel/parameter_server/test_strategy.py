"""sync equals one rank; async and ssp do what the rule says; a pull is never in the middle."""

import time

import numpy as np
import pytest

import minipar
from minipar.errors import Deadlock, Diverged, ShapeMismatch, UsageError
from minipar.models import WideDeep
from minipar.ops import binary_cross_entropy_with_logits
from minipar.optim import Adagrad
from minipar.parallel.parameter_server import (
    ASYNC,
    SYNC,
    Conduct,
    ParameterServer,
    Roles,
    serve,
    ssp,
)
from minipar.random import Init
from minipar.sparse import RowGradient
from minipar.testing.training import CASES, Net, largest_difference, train, train_alone
from tests.parallel.parameter_server.serving import Large, Small, served

# -- sync is exact ----------------------------------------------------------------------------


def one_case(world, servers, case_number, options):
    case, roles = CASES[case_number], Roles(world, servers)
    slice_bytes = 200
    if roles.is_server:
        return serve(roles, Net(case.batch_norm), case.make_optimizer, SYNC, slice_bytes=200)
    made = []

    def make(model, group, make_optimizer):
        more = {"slice_bytes": slice_bytes, **options}
        made.append(ParameterServer(model, roles, make_optimizer, **more))
        return made[0]

    found = train(roles.workers, make, case, case.batch_norm)
    made[0].close()
    return found


def check_case(case_number, workers, servers, backend="local", **options):
    args = servers, case_number, options
    results = minipar.run(one_case, workers + servers, args=args, backend=backend, timeout_s=30)
    alone = [train_alone(CASES[case_number])] * workers
    error, where = largest_difference(results[:workers], alone)
    assert error < 1e-10, where
    assert results[-1].staleness() == {0: 10 * workers}


@pytest.mark.parametrize("case_number", range(len(CASES)))
@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (3, 1), (2, 3)])
def test_sync_equals_one_rank(case_number, workers, servers):
    check_case(case_number, workers, servers)


def test_sync_equals_one_rank_when_pulls_are_asked_for_early():
    check_case(1, 3, 2, prefetch=True)


def test_sync_equals_one_rank_on_processes():
    check_case(1, 2, 1, backend="process")


@pytest.mark.slow
@pytest.mark.parametrize("case_number", range(len(CASES)))
def test_sync_equals_one_rank_on_more_processes(case_number):
    check_case(case_number, 3, 2, backend="process", prefetch=case_number == 1)


def test_without_slack_ssp_equals_sync():
    def work(ps, world):
        for step in range(4):
            ps.zero_grad()
            ps.model.follow(1.0 + step + world.rank)
            ps.sync_gradients(1.0 + world.rank)
            ps.step()
        with ps.whole() as model:
            return model.x.data.copy()

    (a, *_), _ = served(work, 3, rule=SYNC)
    (b, *_), reports = served(work, 3, rule=ssp(0))
    assert (a == b).all()
    assert reports[0].staleness() == {0: 12}


# -- tables -----------------------------------------------------------------------------------

FIELDS, NUMBERS, BATCH, STEPS = (500, 300), 3, 24, 5


def adagrad(named):
    return Adagrad(named, lr=0.1)


def clicks(step, rows):
    dice = np.random.default_rng(step)
    x, ids = dice.normal(size=(BATCH, NUMBERS)), dice.integers(0, 300, (BATCH, 2))
    return (x[rows], ids[rows]), dice.integers(0, 2, BATCH).astype(float)[rows]


def wide_deep():
    return WideDeep(Init(0, np.float64), FIELDS, NUMBERS, d=4, hidden=(8,))


def wide_deep_alone():
    model = wide_deep()
    optimizer = adagrad(model.named_parameters())
    for step in range(STEPS):
        model.zero_grad()
        x, y = clicks(step, slice(0, BATCH))
        binary_cross_entropy_with_logits(model(x), y).backward()
        optimizer.step()
    return model.state_dict(), optimizer.state_dict()


def wide_deep_served(world, servers, ahead, prefetch):
    roles = Roles(world, servers)
    if roles.is_server:
        return serve(roles, wide_deep(), adagrad, SYNC, slice_bytes=500)
    model, workers = wide_deep(), len(roles.worker_ranks)
    part = slice(BATCH * roles.worker // workers, BATCH * (roles.worker + 1) // workers)
    for x in model.parameters():
        x.data[...] = 7.0  # the servers' weights count
    with ParameterServer(model, roles, adagrad, slice_bytes=500, prefetch=prefetch) as ps:
        for step in range(STEPS):
            x, y = clicks(step, part)
            ids = model.rows(x[1])
            ps.pull({"wide.weight": ids, "deep.weight": ids} if ahead else {})
            binary_cross_entropy_with_logits(model(x), y).backward()
            ps.sync_gradients(len(y))
            ps.step()
        state = ps.state_dict()
        with ps.whole() as whole:
            return whole.state_dict(), state


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("prefetch", [False, True])
def test_wide_and_deep_equals_one_rank(workers, servers, ahead, prefetch):
    results = minipar.run(wide_deep_served, workers + servers, args=(servers, ahead, prefetch))
    weights, state = wide_deep_alone()
    for mine, my_state in results[:workers]:
        assert max(abs(mine[name] - a).max() for name, a in weights.items()) < 1e-10
        assert max(abs(my_state[name] - a).max() for name, a in state.items()) < 1e-10


def test_rows_are_pushed_in_any_order_and_those_with_the_same_id_add_up():
    def work(ps, world):
        ps.pull()
        ids = np.array([7, 2, 7])
        rows = RowGradient.of(ids, np.array([[1.0, 2], [10, 20], [100, 200]]), (12, 2))
        ps.push({"table.weight": rows})
        ps.step()
        ps.pull({"table.weight": np.array([[7, 2], [3, 7]])})
        return ps.tables["table.weight"][np.array([2, 3, 7])].tolist()

    (found,), _ = served(work, 1, servers=2)
    assert found == [[2 - 10, 2 - 20], [3, 3], [7 - 101, 7 - 202]]


# -- async and ssp ----------------------------------------------------------------------------


def steps(n):
    def work(ps, world):
        for _ in range(n):
            ps.zero_grad()
            ps.model.follow()
            ps.sync_gradients()
            ps.step()

    return work


@pytest.mark.parametrize("rule", [ASYNC, ssp(2)])
def test_every_push_is_applied_and_recorded(rule):
    _, reports = served(steps(5), 3, servers=2, rule=rule)
    for report in reports:
        assert report.applied == 15
        for worker in range(3):
            clocks = [r.clock for r in report.records if r.worker == worker]
            assert clocks == [1, 2, 3, 4, 5]
        assert sum(report.staleness().values()) == 15
        assert max(report.staleness()) >= 1


def test_async_gradients_are_clipped_by_their_own_norm():
    def work(ps, world):
        ps.zero_grad()
        ps.model.follow(gx=0.0)
        norm = ps.clip(1.0)
        ps.step()
        with ps.whole() as model:
            return norm, np.linalg.norm(model.y.data)

    (found,), _ = served(work, 1)
    assert found == (pytest.approx(5**0.5), pytest.approx(1.0))


@pytest.mark.parametrize("s", [1, 3])
def test_ssp_stays_within_its_bound_and_reaches_it(s):
    def work(ps, world):
        ahead = []
        for step in range(12):
            ps.zero_grad()
            ahead.append(ps.worker.clock)
            if world.rank == 0:  # the others have many turns while it computes
                for _ in range(40):
                    world.poll()
            ps.model.follow()
            ps.sync_gradients()
            ps.step()
            assert step == ahead[-1]

    _, (report,) = served(work, 3, rule=ssp(s))
    assert report.most_ahead == s
    _, (free,) = served(work, 3, rule=ASYNC)
    assert free.most_ahead > s


def test_a_server_of_tables_alone_sees_who_is_ahead():
    def work(ps, world):
        for _ in range(6):
            ps.zero_grad()
            for _ in range(40 * (world.rank == 0)):
                world.poll()
            ps.model.follow(ids=[world.rank])
            ps.sync_gradients()
            ps.step()

    _, reports = served(work, 2, servers=2, rule=ssp(1), slice_bytes=1 << 20)
    assert [report.most_ahead for report in reports] == [1, 1]


def sleeps_while_its_answer_comes(ps, world):
    """Worker 0 does not take in what comes while worker 1 pushes."""
    seen = []
    for _ in range(4):
        ps.pull()
        seen.append(float(np.ptp(ps.model.x.data)))
        if world.rank == 0:
            time.sleep(0.03)
        ps.push({"x": np.ones_like(ps.model.x.data)})
        ps.step()
    return seen


def test_a_pull_never_sees_half_a_push():
    """An answer of 4 MB, of which the part that has gone is of before a push."""
    options = {"model": Large, "prefetch": True, "backend": "process", "slice_bytes": 1 << 30}
    found, (report,) = served(sleeps_while_its_answer_comes, 2, **options)
    assert found == [[0.0] * 4] * 2
    assert report.applied == 8


def test_what_is_asked_for_early_does_not_come_into_weights_that_are_in_use():
    def work(ps, world):
        seen = []
        for _ in range(6):
            ps.pull()
            before = ps.model.x.data.copy()
            for _ in range(20 * (1 - world.rank)):
                world.poll()
            assert (ps.model.x.data == before).all()
            seen.append(before[0])
            ps.push({"x": np.ones_like(before)})
            ps.step()
        return seen

    found, _ = served(work, 2, model=Large, prefetch=True, slice_bytes=1 << 30)
    assert all(len(set(seen)) > 3 for seen in found)


def test_rows_wait_behind_weights_that_were_asked_for_early():
    """Worker 0 is ahead: its early pull has to wait, and so have rows that it asks for then."""

    def work(ps, world):
        for _ in range(3):
            ps.pull()
            for _ in range(30 * world.rank):
                world.poll()
            rows = ps.tables["table.weight"][np.array([3, 9])]
            assert (rows == [[3, 3], [9, 9]]).all()
            ps.push({"y": np.ones(5)})
            ps.step()
        return set(ps.model.x.data.reshape(-1).tolist())

    found, _ = served(work, 2, rule=ssp(1), prefetch=True)
    assert found == [{0.0}, {0.0}]


def test_a_goodbye_returns_when_the_last_push_has_been_applied():
    events = []

    def noted(named):
        optimizer = adagrad(named)
        step = optimizer.step
        optimizer.step = lambda: (step(), events.append("applied"))
        return optimizer

    def work(world):
        roles = Roles(world)
        if roles.is_server:
            return serve(roles, Small(), noted, SYNC)
        ps = ParameterServer(Small(), roles, noted)
        for _ in range(20 * roles.worker):
            world.poll()
        ps.pull()
        ps.push({"y": np.ones(5)})
        ps.step()
        ps.close()
        return events.append("closed")

    minipar.run(work, 3)
    assert events == ["applied", "closed", "closed"]


def test_versions_are_visible():
    def work(ps, world):
        ps.pull()
        ps.push({"y": np.ones(5)})
        ps.step()
        ps.pull()
        return ps.worker.versions

    (versions,), _ = served(work, 1, slice_bytes=1 << 20)
    assert versions == {"x": 0, "y": 1, "table.weight": 0}


@pytest.mark.parametrize("compress", ["float16", "int8"])
def test_pushes_may_be_compressed(compress):
    def work(ps, world):
        ps.pull()
        ps.push({"y": np.array([1.0, 0.5, 0.3, -0.2, 0])})
        ps.step()
        with ps.whole() as model:
            return model.y.data

    (y,), _ = served(work, 1, compress=compress)
    assert 0 < abs(y + np.array([1.0, 0.5, 0.3, -0.2, 0])).max() < 5e-3


# -- loading, evaluating ----------------------------------------------------------------------


def test_what_is_changed_in_whole_counts_also_in_tables():
    def work(ps, world):
        with ps.whole() as model:
            state = {name: np.full_like(a, 3.0) for name, a in model.state_dict().items()}
            model.load_state_dict(state)
        ps.pull()
        ids = np.array([0, 11])
        return ps.model.x.data[0, 0], ps.model.y.data[4], ps.model.table.weight.data[ids].tolist()

    found, _ = served(work, 2, servers=2)
    assert found == [(3.0, 3.0, [[3.0, 3.0], [3.0, 3.0]])] * 2


def test_state_of_the_optimizer_goes_round():
    def work(world, servers):
        roles = Roles(world, servers)
        if roles.is_server:
            return serve(roles, Small(), adagrad, SYNC, slice_bytes=16)
        with ParameterServer(Small(), roles, adagrad, slice_bytes=16) as ps:
            steps(2)(ps, world)
            state = ps.state_dict()
            steps(1)(ps, world)
            ps.load_state_dict(state)
            again = ps.state_dict()
            with pytest.raises(UsageError, match="missing"):
                ps.load_state_dict({"step": np.array(1)})
            world.rank == 0 or ps.roles.workers.barrier()  # only worker 0 loads
            return all((state[name] == again[name]).all() for name in state), int(again["step"])

    assert minipar.run(work, 2, args=(1,))[0] == (True, 2)


# -- what is refused --------------------------------------------------------------------------


def bad(name):
    return {
        "unknown": {"z": np.ones(3)},
        "shape": {"x": np.ones((4, 3))},
        "dtype": {"x": np.ones((3, 4), np.float32)},
        "index": {"table.weight": RowGradient(np.array([12]), np.ones((1, 2)), (12, 2))},
        "nan": {"y": np.array([0, 0, np.nan, 0, 0])},
    }[name]


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("unknown", UsageError, "worker 1: unknown key z; there are table.weight, x, y"),
        ("shape", ShapeMismatch, r"worker 1: the gradient of x is float64\[4, 3\]"),
        ("dtype", ShapeMismatch, r"worker 1: the gradient of x is float32\[3, 4\]"),
        ("index", UsageError, "worker 1: the gradient of table.weight has the rows 12 to 12"),
        ("nan", Diverged, r"worker 1: the gradient of y\S* has NaN"),
    ],
)
def test_a_bad_push_is_refused_and_nobody_is_harmed(name, kind, says):
    def work(ps, world):
        ps.pull()
        if world.rank == 1:
            with pytest.raises(kind, match=says):
                ps.push(bad(name))
        ps.push({"y": np.ones(5)})
        ps.step()
        ps.roles.workers.barrier()
        with ps.whole() as model:
            return model.y.data.tolist(), bool(model.x.data.any())

    found, _ = served(work, 2, servers=2, slice_bytes=16)
    assert found == [([-2.0] * 5, False)] * 2


def test_bad_ids_are_refused():
    def work(ps, world):
        with pytest.raises(UsageError, match=r"worker 0: the ids for \S+ run from 3 to 12"):
            ps.pull({"table.weight": [3, 12]})
        with pytest.raises(UsageError, match=r"worker 0: there is no table x; there are t"):
            ps.pull({"x": [1]})
        ps.pull()

    served(work, 1)


@pytest.mark.parametrize("rule", [SYNC, ASYNC])
def test_nan_can_be_skipped(rule):
    def work(ps, world):
        for step in range(2):
            ps.pull()
            wrong = step == world.rank == 0
            ps.push({"y": np.full(5, np.nan if wrong else 1.0)})
            ps.step()
        with ps.whole() as model:
            return model.y.data[0]

    found, (report,) = served(work, 2, rule=rule, conduct=Conduct(on_nan="skip"))
    assert report.skipped == 1
    assert report.applied == 3
    if rule == SYNC:
        assert found == [-2.0, -2.0]


def test_servers_and_workers_need_the_same_keys():
    def work(world):
        roles = Roles(world)
        if roles.is_server:
            return serve(roles, Small(), adagrad, ASYNC)
        with pytest.raises(UsageError, match="server 1, HELLO of worker 0 refused: its"):
            ParameterServer(Large(), roles, adagrad)
        ParameterServer(Small(), roles, adagrad).close()
        return None

    minipar.run(work, 2)


def test_options_are_checked():
    with pytest.raises(UsageError, match="on_nan is 'error' or 'skip', not 'ignore'"):
        served(steps(1), 1, conduct=Conduct(on_nan="ignore"))
    with pytest.raises(UsageError, match="no 'zip'; there are none, float16, int8"):
        served(steps(1), 1, compress="zip")
    with pytest.raises(UsageError, match="3 of 3 ranks cannot be servers"):
        minipar.run(lambda world: Roles(world, 3), 3)


def test_a_worker_that_only_returns_is_not_waited_for_forever():
    def work(world):
        roles = Roles(world)
        if roles.is_server:
            return serve(roles, Small(), adagrad, ASYNC)
        ParameterServer(Small(), roles, adagrad)
        return None

    with pytest.raises(Deadlock, match="rank 0 has finished, rank 1 waits for any rank"):
        minipar.run(work, 2)


@pytest.mark.parametrize("finite", [True, False])
def test_servers_look_for_nan_where_the_worker_has_not(finite):
    def work(ps, world):
        values = [{i: np.full(key.shape, np.nan) for i, key in enumerate(line.shard.keys[:1])}
                  for line in ps.worker.lines]  # fmt: skip
        ps.zero_grad()
        ps.worker.push(values, 1.0, finite=finite)
        ps.worker.step(1.0)
        ps.zero_grad()
        return np.isnan(ps.dense["x"].data).any()

    if finite:  # it has said that it did, and is believed
        assert served(work, 1)[0] == [True]
    else:
        with pytest.raises(Diverged, match="PUSH of worker 0 refused: x has NaN"):
            served(work, 1)
