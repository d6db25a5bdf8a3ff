"""A complete trace has no gap; what is missing, too much or out of order is one, and is named."""

import pytest

from minipar import verify_traces
from minipar.comm import tracing as module
from minipar.trace.trace_file import load
from minipar.verify import verify
from minipar.verify_traces import CONFIG, gap, rows, traced, traffic


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    import minipar

    folder = tmp_path_factory.mktemp("trace")
    minipar.run(traced, CONFIG.ranks, args=(CONFIG, str(folder)))
    return load(folder)


@pytest.fixture(scope="module")
def counted(trace):
    return traffic(m for rank in trace.ranks for m in rank.messages)


def changed(trace, **of_rank_1):
    ranks = list(trace.ranks)
    ranks[1] = ranks[1]._replace(**of_rank_1)
    return trace._replace(ranks=ranks)


def test_a_message_that_one_side_did_not_note_is_a_gap(trace, counted):
    assert gap(trace, counted) == (0, "")
    lost = trace.ranks[1].receipts[0]
    found = gap(changed(trace, receipts=trace.ranks[1].receipts[1:]), counted)
    assert found.entries == 1
    assert found.where == (
        f"{lost.op} of {lost.nbytes} bytes from rank {lost.rank} to {lost.peer}, received: "
        "1 too few"
    )
    doubled = trace.ranks[1].messages + trace.ranks[1].messages[:1]
    assert gap(changed(trace, messages=doubled), counted).where.endswith("sent: 1 too many")


def test_what_ends_before_it_begins_is_a_gap(trace, counted):
    first, *others = trace.ranks[1].spans
    found = gap(changed(trace, spans=[first._replace(end=first.begin - 1), *others]), counted)
    assert found.entries == 1 and found.where.startswith("rank 1: the times of Span(")


def test_a_trace_of_nothing_is_not_complete(trace, counted):
    nothing = [r._replace(messages=[], receipts=[]) for r in trace.ranks]
    assert gap(trace._replace(ranks=nothing), traffic([])).where == "nothing was sent at all"
    assert gap(trace._replace(ranks=nothing), counted).entries == 2 * counted.total()


def test_it_is_a_row_of_verify_and_a_wrong_one_is_not_ok(monkeypatch):
    (row,) = verify(["trace"], backends=["local"])
    assert (row["strategy"], row["layout"], row["ranks"]) == ("trace", "dp=2 pp=2 tp=2", 8)
    assert row["ok"] and row["max_error"] == 0.0
    assert not list(verify(["trace"], backends=["local"], ranks=[2, 4]))

    def forgetful(path, tape, facts):
        del tape.receipts[::2]
        saved(path, tape, facts)

    saved = module.save
    monkeypatch.setattr(module, "save", forgetful)
    (row,) = rows(["local"])
    assert not row["ok"] and row["max_error"] > 100 and "received: " in row["where"]


def test_a_run_that_fails_is_a_row(monkeypatch):
    def fails(*_, **__):
        raise OSError("no room")

    monkeypatch.setattr(verify_traces, "run", fails)
    (row,) = rows(["local"])
    assert row["error"] == "OSError: no room" and not row["ok"] and row["max_error"] is None
