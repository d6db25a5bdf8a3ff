"""The JSON for trace viewers: what the format asks for, and every message as one arrow."""

import json
from collections import Counter

import numpy as np

import minipar
from minipar.alive import KINDS
from minipar.comm.tracing import tracing
from minipar.spans import span
from minipar.trace.perfetto import pairs_of, perfetto
from minipar.trace.trace_file import Trace, load
from tests.trace.test_served import TRACE
from tests.trace.test_totals import RANK

PHASES = {
    "M": {"pid", "name", "args"},
    "X": {"pid", "tid", "name", "ts", "dur", "cat", "args"},
    "s": {"pid", "tid", "ts", "id", "name", "cat"},
    "f": {"pid", "tid", "ts", "id", "name", "cat", "bp"},
    "C": {"pid", "name", "ts", "args"},
}


def work(group, folder):
    with tracing(group, folder):
        with span("forward", "<script>alert(1)</script>"):
            group.all_reduce(np.ones(30), algorithm="ring")
        right, left = (group.rank + 1) % group.size, (group.rank - 1) % group.size
        for n in range(3):
            group.sendrecv(np.ones(n + 1), right, left)
        group.all_reduce(np.ones(3), async_op=True).wait()


def test_rows_and_arrows(tmp_path):
    minipar.run(work, 3, args=(tmp_path,))
    trace = load(tmp_path)
    rows = json.loads(json.dumps(perfetto(trace, 0, trace.end + 1)))["traceEvents"]
    assert all(PHASES[row["ph"]] <= row.keys() for row in rows)
    assert all(row["dur"] >= 0 for row in rows if row["ph"] == "X")
    ids = Counter((row["ph"], row["id"]) for row in rows if row["ph"] in "sf")
    messages = sum(len(rank.messages) for rank in trace.ranks)
    assert len(ids) == 2 * messages and set(ids.values()) == {1}
    calls = [row for row in rows if row["ph"] == "X" and row["cat"] == "call"]
    assert Counter(row["tid"] for row in calls) == {0: 3, 1: 3}  # the second thread has its row
    assert {row["pid"] for row in rows} == {0, 1, 2}
    assert len(perfetto(trace, 0, 0)["traceEvents"]) == 3 * 4  # names only


def test_what_a_rank_holds_is_a_counter():
    rank = RANK._replace(held=[(10, 2**20, 0, 0, 0, 2**21), (70, 2**20, 0, 0, 0, 0)])
    rows = perfetto(Trace("local", False, [rank], 0), 0, 50)["traceEvents"]
    (counted,) = [row for row in rows if row["ph"] == "C"]
    assert counted["ts"] == 0.01 and counted["args"] == {
        **dict.fromkeys(KINDS, 0), "weights": 1, "activations": 2,
    }  # fmt: skip


def test_clocks_versions_and_staleness_are_counters():
    rows = perfetto(TRACE, 0, 600)["traceEvents"]
    found = [(row["pid"], row["ts"], row["name"], row["args"]) for row in rows if row["ph"] == "C"]
    assert [(pid, ts, args["clock"]) for pid, ts, name, args in found if name == "clock"] == [
        *((0, 0, 0), (0, 0.1, 1), (0, 0.2, 2), (1, 0, 0), (1, 0.5, 1)),
    ]
    versions = [(ts, args["version"]) for _, ts, name, args in found if name == "version"]
    assert versions == [(0.105, 1), (0.205, 2), (0.505, 3)]
    stale = [args for _, _, name, args in found if name == "staleness"]
    assert stale == [{"of worker 0": 0}, {"of worker 0": 0}, {"of worker 1": 2}]


def test_an_arrow_goes_to_the_receipt_of_its_own_message(tmp_path):
    minipar.run(work, 3, args=(tmp_path,))
    for sent, got in pairs_of(load(tmp_path)):
        assert sent[:2] == got[:2] and sent.nbytes == got.nbytes and sent.op == got.op
