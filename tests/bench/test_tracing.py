import pytest

from minipar.bench import tracing
from minipar.errors import UsageError

ROW = {"model": "gpt-128", "ranks": 2, "backend": "process", "plain_ms": 40.0, "traced_ms": 40.5}


def test_steps_are_timed_with_a_tape_and_without(monkeypatch):
    monkeypatch.setitem(vars(tracing), "MODELS", {"gpt-16": {"d": 16, "batch": 4, "block": 8}})
    row = tracing.bench_trace("gpt-16", ranks=2, rounds=2, backend="local")
    assert (row["model"], row["ranks"], row["backend"]) == ("gpt-16", 2, "local")
    assert row["plain_ms"] > 0 and row["traced_ms"] > 0 and row["ratio"] > 0.5
    assert row["records"] > 60  # modules, vjps, and the messages of an all-reduce


def test_the_ratio_is_that_of_the_pairs(monkeypatch):
    """A machine that becomes ten times slower in the second round changes nothing."""
    times = [10.0, 100.0], [11.0, 110.0], 7
    monkeypatch.setattr(tracing, "run", lambda *_, **__: [times])
    assert tracing.bench_trace()["ratio"] == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"model": "mlp"}, "gpt-64, gpt-128, gpt-256, not 'mlp'"), ({"rounds": 0}, "1 round")],
)
def test_what_cannot_be_measured_is_one_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        tracing.bench_trace(**options)


def test_a_line_has_the_columns_of_the_head():
    line = tracing.line(ROW | {"ratio": 1.0125, "records": 101})
    assert len(line) == len(tracing.HEAD)
    assert " ".join(line.split()) == "gpt-128 2 process 40.00 ms 40.50 ms 1.012 101"
