"""`bench comm`: the rows of a small real run, the turns, and the numbers by hand."""

import json

import pytest

from minipar import cost
from minipar.bench import comm
from minipar.bench.comm import Entry, Plan
from minipar.bench.comm_peers import Missing, Unsupported
from minipar.bench.fit import Machine
from minipar.comm.algorithms import ALGORITHMS
from minipar.comm.choose import choose
from minipar.errors import RankFailed, UsageError


class Fake:
    """A contender whose calls take as long as it says; it notes when it is asked."""

    version = "fake 1"

    def __init__(self, name, asked, seconds=0.01, error=None):
        self.name, self.asked, self.seconds, self.error = name, asked, seconds, error

    def ask(self, op, algorithm, nbytes, times):
        self.asked.append((self.name, times))
        if self.error is not None:
            raise self.error
        return self.seconds(len(self.asked)) if callable(self.seconds) else self.seconds

    def close(self):
        self.asked.append((self.name, "closed"))


def test_everybody_is_asked_in_turn_round_after_round():
    asked = []
    entries = [Entry(Fake(name, asked), "") for name in "abc"]
    comm.in_turn(entries, "all_reduce", 8, rounds=3)
    assert "".join(name for name, _ in asked) == "abc" * (2 + 3)


def test_calls_are_timed_together_for_a_while_as_many_in_every_round():
    asked = []
    quick, slow = Fake("quick", asked, seconds=1e-5), Fake("slow", asked, seconds=2.0)
    comm.in_turn([Entry(quick, ""), Entry(slow, "")], "all_reduce", 8, rounds=2)
    assert [times for name, times in asked if name == "quick"] == [3, 3000, 3000, 3000]
    assert [times for name, times in asked if name == "slow"] == [3, 3, 3, 3]


def test_the_median_of_the_rounds_counts_and_no_warming_up():
    by_turn = dict(enumerate([100, 100, 3, 1, 2, 50, 2.5], start=1))
    entry = Entry(Fake("a", [], seconds=by_turn.get), "")
    seconds, _ = comm.in_turn([entry], "all_reduce", 8, rounds=5)
    assert seconds == {entry: 2.5}


@pytest.mark.parametrize("error", [Missing("gone"), Unsupported("not in this version")])
def test_a_peer_that_fails_gets_a_note_and_the_others_go_on(error):
    mine, peer = Entry(Fake("process", []), ""), Entry(Fake("gloo", [], error=error), "")
    seconds, notes = comm.in_turn([mine, peer], "all_to_all", 8, rounds=1)
    assert seconds == {mine: 0.01} and notes == {peer: str(error)}
    assert len(peer.contender.asked) == 1  # and is not asked again


def test_if_our_own_ranks_fail_that_is_an_error():
    refusing = Entry(Fake("process", [], error=Unsupported("no such memory")), "direct")
    assert comm.in_turn([refusing], "all_reduce", 8, rounds=1) == ({}, {refusing: "no such memory"})
    mine = Entry(Fake("process", [], error=Missing("its ranks ended early: Deadlock")), "")
    with pytest.raises(RankFailed, match="all_reduce of 8 bytes: its ranks ended early: Deadlock"):
        comm.in_turn([mine], "all_reduce", 8, rounds=1)


@pytest.mark.slow
def test_rows_of_a_small_run():
    plan = Plan(ops=comm.OPS, sizes=[8, 4096], against=[], rounds=1)
    (fit, *rows) = map(json.loads, map(json.dumps, comm.bench_comm(plan)))
    numbers = [fit["fit"][name] for name in ("alpha_s", "beta_s_per_byte", "gamma_s_per_byte")]
    machine = Machine(*numbers, error=0)
    assert machine.alpha + machine.beta > 0 and 0 < machine.gamma < 1e-6
    assert [(row["op"], row["bytes"]) for row in rows] == [
        *[(op, size) for op in comm.OPS[:-1] for size in (8, 4096)],
        ("barrier", 0),
    ]
    for row in rows:
        op, n = row["op"], row["bytes"]
        assert (row["backend"], row["ranks"], row["memory"]) == ("process", 2, "private")
        assert 0 < row["seconds"] < 10 and row["note"] is None and row["ratio"] == {}
        assert row["bus_gb_s"] == pytest.approx(comm.bus_bytes(op, 2, n) / row["seconds"] / 1e9)
        if op == "send_recv":
            assert row["predicted_seconds"] == pytest.approx(machine.alpha + n * machine.beta)
        else:
            assert row["algorithm"] == choose(op, n, 2, "process")
            chain = cost.of(op, row["algorithm"], 2, n)
            assert row["predicted_seconds"] == pytest.approx(chain.seconds(*numbers))


@pytest.mark.slow
def test_all_algorithms_on_more_ranks_that_take_turns():
    plan = Plan(
        ranks=3, ops=["broadcast", "send_recv"], sizes=[12], algorithms=["default", "all"],
        against=[], rounds=1, backend="local",
    )  # fmt: skip
    _, *rows = comm.bench_comm(plan)
    names = [row["algorithm"] for row in rows]
    assert sorted(names) == sorted([*ALGORITHMS["broadcast"], "there_and_back"])


def test_missing_peers_are_noted_and_the_others_compared(monkeypatch):
    asked = []

    def start(name, *_):
        if name == "gloo":
            raise Missing("torch is not installed")
        return Fake(name, asked, seconds={"process": 0.01, "openmpi": 0.04}[name])

    monkeypatch.setattr(comm, "start", start)
    missing, fit, mine, peer = comm.bench_comm(Plan(ops=["all_reduce"], sizes=[800], rounds=2))
    assert (missing["backend"], missing["note"]) == ("gloo", "torch is not installed")
    assert missing["seconds"] is None and missing.keys() == mine.keys() == peer.keys()
    assert fit["fit"]["versions"] == ["fake 1", "fake 1"]
    assert mine["ratio"] == {"openmpi": pytest.approx(4)}  # four times as fast
    assert mine["bus_gb_s"] == pytest.approx(800 / 0.01 / 1e9)
    assert (peer["backend"], peer["algorithm"], peer["ratio"]) == ("openmpi", "native", None)
    assert asked[-2:] == [("openmpi", "closed"), ("process", "closed")]


def test_one_rank_has_nobody_to_send_to():
    plan = Plan(ranks=1, ops=["all_reduce", "send_recv"], sizes=[8], against=[], rounds=1)
    reduced, sent = comm.bench_comm(plan)  # and no fit
    assert reduced["seconds"] > 0 and reduced["bus_gb_s"] == 0
    assert reduced["predicted_seconds"] is None
    assert sent["note"] == "send_recv needs 2 ranks"


@pytest.mark.parametrize(
    ("op", "bytes_on_the_bus"),
    [
        ("all_reduce", 1200),  # 2 · 3/4 · 800
        ("reduce_scatter", 600),
        ("all_gather", 600),
        ("all_to_all", 600),
        ("broadcast", 800),
        ("send_recv", 800),
    ],
)
def test_bus_bytes_of_four_ranks_by_hand(op, bytes_on_the_bus):
    assert comm.bus_bytes(op, 4, 800) == bytes_on_the_bus


def test_sizes():
    written = ["8", "64K", "1M", "1mb", "1.5M", " 2G "]
    expected = [8, 65536, 2**20, 2**20, 3 * 2**19, 2**31]
    assert [comm.bytes_of(text) for text in written] == expected
    for text in ("", "x", "-1", "1T", "1 M B"):
        with pytest.raises(UsageError, match="cannot read the size"):
            comm.bytes_of(text)


@pytest.mark.parametrize(
    ("op", "asked", "taken"),
    [("all_reduce", 8, 8), ("all_reduce", 9, 12), ("all_gather", 8, 12), ("all_to_all", 2**20, 0),
     ("barrier", 64, 0), ("broadcast", 0, 4)],
)  # fmt: skip
def test_an_array_has_whole_numbers_alike_on_three_ranks(op, asked, taken):
    assert comm.whole_bytes(op, asked, 3) == (taken or 1048584 if op != "barrier" else 0)


def test_an_algorithm_must_belong_to_a_call_and_each_call_have_one():
    Plan(ops=["all_reduce", "send_recv"], algorithms=["ring"])
    Plan(ops=["all_reduce", "barrier"], algorithms=["ring", "tree"])
    with pytest.raises(UsageError, match="barrier has no algorithm ring; it has naive, tree"):
        Plan(ops=["all_reduce", "barrier"], algorithms=["ring"])
    with pytest.raises(UsageError, match="no algorithm of broadcast 'dissemination'"):
        Plan(ops=["broadcast"], algorithms=["dissemination"])


def test_only_mpi_has_a_native_algorithm(monkeypatch):
    monkeypatch.setattr(comm, "BACKENDS", ("process", "mpi"))
    plan = Plan(ops=["barrier"], algorithms=["default", "native"], backend="mpi")
    assert plan.names("barrier", 0) == ["dissemination", "native"]
    with pytest.raises(UsageError, match="no algorithm of barrier 'native'"):
        Plan(ops=["barrier"], algorithms=["native"])
