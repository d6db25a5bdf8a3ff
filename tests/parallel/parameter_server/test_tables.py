"""A worker holds the rows that it touches, and bytes grow with these and not with the table."""

import resource

import numpy as np
import pytest

import minipar
from minipar.errors import UsageError
from minipar.events import recording
from minipar.models import WideDeep
from minipar.ops import binary_cross_entropy_with_logits
from minipar.parallel.parameter_server import ASYNC, Hollow, ParameterServer, Roles, serve
from minipar.parallel.parameter_server.tables import RemoteTable, is_hollow
from minipar.random import Init
from tests.parallel.parameter_server.serving import sgd

WEIGHTS = np.arange(20.0).reshape(10, 2)


def remote():
    asked, put = [], []

    def fetch(ids):
        asked.append(ids.tolist())
        return WEIGHTS[ids]

    return RemoteTable((10, 2), np.float64, fetch, put.append), asked, put


def test_rows_are_fetched_once_and_given_in_the_shape_of_the_ids():
    table, asked, _ = remote()
    assert (table[np.array([[7, 2], [7, 3]])] == WEIGHTS[[[7, 2], [7, 3]]]).all()
    assert (table[np.array([3, 0, 9])] == WEIGHTS[[3, 0, 9]]).all()
    assert (table[np.array([7])] == WEIGHTS[[7]]).all()
    assert asked == [[2, 3, 7], [0, 9]]
    table.forget()
    assert len(table.rows) == 0
    assert (table[np.array([7])] == WEIGHTS[[7]]).all()
    assert asked[2:] == [[7]]


def test_all_of_it_can_be_had_and_replaced():
    table, _, put = remote()
    assert (table.copy() == WEIGHTS).all()
    assert (np.asarray(table) == WEIGHTS).all()
    table[...] = WEIGHTS + 1
    assert (put[0] == WEIGHTS + 1).all()
    with pytest.raises(UsageError, match="as a whole only"):
        table[3] = 0.0
    with pytest.raises(UsageError, match="gives rows picked by an array of integers, not by slice"):
        table[2:4]


def test_hollow_arrays_have_a_shape_and_no_memory():
    x = Hollow().normal("x", (10**6, 10**6), 1.0)
    assert is_hollow(x)
    assert x.shape == (10**6, 10**6)
    small = Hollow(3).normal("x", (4, 5), 1.0)
    assert (small == Init(3).normal("x", (4, 5), 1.0)).all()
    assert not is_hollow(small)


def one_step(world, rows, batch):
    """Bytes that leave each rank in one step of Wide & Deep with so many rows in its table."""
    roles = Roles(world)
    if roles.is_server:
        with recording() as log:
            serve(roles, WideDeep(Init(), (rows,), 3), sgd, ASYNC)
        return sum(event.nbytes for event in log)
    model = WideDeep(Hollow(), (rows,), 3)
    with ParameterServer(model, roles, sgd) as ps:
        ids = np.random.default_rng(0).choice(rows, (batch, 1), replace=False)
        with recording() as log:
            ps.pull({name: model.rows(ids) for name in ps.tables})
            x = np.zeros((batch, 3), np.float32), ids
            binary_cross_entropy_with_logits(model(x), np.zeros(batch, "f")).backward()
            ps.step()
        assert all(len(table.ids) == batch for table in ps.tables.values())
    return sum(event.nbytes for event in log)


def test_bytes_grow_with_the_rows_touched_and_not_with_the_table():
    small, same, more = (
        minipar.run(one_step, 2, args=a) for a in ((500, 8), (50_000, 8), (500, 48))
    )
    assert small == same
    # Each id of 8 bytes and its 9 numbers of float32, there and back; two tables.
    assert more[0] - small[0] == 40 * (2 * 8 + 2 * 8 + 9 * 4)
    assert more[1] - small[1] == 40 * 9 * 4


def memory_of_a_worker(world, rows):
    """How many bytes it took more than before."""
    roles = Roles(world)
    if roles.is_server:
        serve(roles, WideDeep(Init(), (rows,), 3, d=16), sgd, ASYNC)
        return None
    ids = np.random.default_rng(0).integers(0, rows, (64, 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = WideDeep(Hollow(), (rows,), 3, d=16)
    with ParameterServer(model, roles, sgd) as ps:
        for _ in range(3):
            ps.zero_grad()
            x = np.zeros((64, 3), np.float32), ids
            binary_cross_entropy_with_logits(model(x), np.zeros(64, "f")).backward()
            ps.step()
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_a_worker_does_not_hold_the_table():
    rows = 300_000  # 19 MB
    grown = minipar.run(memory_of_a_worker, 2, args=(rows,), backend="process")[0]
    assert grown < rows * 16 * 4 / 3
