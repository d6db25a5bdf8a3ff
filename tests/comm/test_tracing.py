"""A trace is complete: what was received was sent, and both are what `recording` counts."""

import os
from collections import Counter

import numpy as np
import pytest

import minipar
from minipar import Cluster, cost
from minipar.comm.tracing import VARIABLE, clock_offset, tracing
from minipar.config import Config
from minipar.errors import Deadlock
from minipar.events import recording
from minipar.spans import span
from minipar.trace.trace_file import load
from tests.comm import ranks


def traffic(events):
    return Counter((e.rank, e.peer, e.op, e.nbytes) for e in events)


@pytest.mark.parametrize(("backend", "p"), [("local", 3), ("process", 2)])
def test_every_message_is_there_twice_and_counted_the_same(backend, p, tmp_path):
    counted = minipar.run(ranks.traced_calls, p, args=(str(tmp_path),), backend=backend)
    trace = load(tmp_path)
    sent = traffic(m for rank in trace.ranks for m in rank.messages)
    got = traffic(m for rank in trace.ranks for m in rank.receipts)
    assert sent == got == Counter({tuple(k): n for log in counted for k, n in log})
    assert sum(sent.values()) > 50
    for rank in trace.ranks:
        assert {c.op for c in rank.calls} >= set(ranks.TRACED_OPS)
        for rows in (rank.spans, rank.calls, rank.messages):
            assert all(rank.begin <= row.begin <= row.end <= rank.end for row in rows)


@pytest.mark.slow
def test_a_training_on_eight_processes_is_complete(tmp_path):
    """2 x 2 x 2: pair by pair, what was received is what was sent, along every axis."""
    config = Config(dp=2, pp=2, tp=2, layers=2, d=16, heads=2, block=8, batch=8, steps=2)
    minipar.run(ranks.traced_steps, 8, args=(config, str(tmp_path)), backend="process")
    trace = load(tmp_path)
    sent = traffic(m for rank in trace.ranks for m in rank.messages)
    assert sent == traffic(m for rank in trace.ranks for m in rank.receipts)
    assert {trace.axis(m) for rank in trace.ranks for m in rank.messages} >= {"dp", "pp", "tp"}
    for rank in trace.ranks:
        assert {s.kind for s in rank.spans} >= {
            "forward",
            "backward",
            "reduce",
            "clip",
            "optimizer",
        }
        for rows in (rank.spans, rank.calls, rank.messages):
            assert all(rank.begin <= row.begin <= row.end <= rank.end for row in rows)


def test_virtual_time_is_that_of_the_formula(tmp_path):
    """A ring all_reduce takes 2(p-1)(α + n/p·β) + (p-1)·n/p·γ, and the trace says so."""
    p, n, alpha, beta, gamma = 4, 640, 1000e-9, 3e-9, 7e-9

    def work(group):
        with tracing(group, tmp_path):
            group.all_reduce(np.zeros(n // 8), algorithm="ring")
            with span("forward"):
                group.spend(5e-6)

    minipar.run(work, p, cluster=Cluster(alpha, beta, gamma))
    trace = load(tmp_path)
    formula = round(cost.ring_all_reduce(p, n).seconds(alpha, beta, gamma) * 1e9)
    assert trace.virtual
    for rank in trace.ranks:
        (call,) = rank.calls
        (forward,) = [s for s in rank.spans if s.kind == "forward"]
        assert (call.begin, call.end) == (0, formula)
        assert (forward.begin, forward.end) == (formula, formula + 5000)


def test_what_fails_is_traced_up_to_there(tmp_path):
    def work(group):
        with tracing(group, tmp_path):
            group.barrier()
            with span("forward"):
                raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        minipar.run(work, 2)
    trace = load(tmp_path)
    assert [s.kind for s in trace.ranks[0].spans if s.kind != "wait"] == ["forward"]


def test_nothing_is_left_behind(tmp_path):
    def work(group):
        with tracing(group, tmp_path) as tape:
            with tracing(group, tmp_path / "inner") as inner:  # the outer one has it all
                assert inner is tape
            group.barrier()
        calls = len(tape.collectives)
        group.barrier()
        with recording() as log:
            group.barrier()
        return len(tape.collectives) == calls, "wait" in vars(group._transport), len(log) > 0

    assert minipar.run(work, 2) == [(True, False, True)] * 2
    assert not (tmp_path / "inner").exists()


class Ahead:
    """A group whose clock is ahead, as on another host."""

    def __init__(self, group, ns):
        self._group, self._ns, self.backend = group, ns, "process"

    def __getattr__(self, name):
        return getattr(self._group, name)

    def now_ns(self):
        return self._group.now_ns() + self._ns


def test_clocks_are_compared_with_that_of_rank_0():
    ahead = (10**6, 5 * 10**9, -(10**9))

    def work(group):
        return clock_offset(Ahead(group, ahead[group.rank]))

    for (offset, doubt), ns in zip(minipar.run(work, 3), ahead, strict=True):
        assert abs(offset - (ahead[0] - ns)) <= doubt


def receive_in_a_circle(group, folder):
    with tracing(group, folder):
        group.barrier()
        group.recv(1 - group.rank)


def test_questions_about_clocks_are_no_calls_of_the_run(tmp_path):
    """An error told of `send #10 (to 1) at contextlib.py`, and of recv #10 where it is recv #0."""

    with pytest.raises(Deadlock) as caught:
        minipar.run(receive_in_a_circle, 2, args=(tmp_path,), backend="process")
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "recv #0 (from 1)" in told
    assert "contextlib" not in told and "send" not in told.replace("both send", "")


def test_a_variable_has_every_rank_traced(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "trace"))
    minipar.run(ranks.rank_and_big_result, 2, args=(2,), backend="process")
    minipar.run(lambda group: group.barrier(), 2)
    assert sorted(os.listdir(tmp_path / "trace")) == ["rank-0.npz", "rank-1.npz"]
    assert [c.op for c in load(tmp_path / "trace").ranks[0].calls] == ["barrier"]
