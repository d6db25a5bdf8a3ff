import importlib.util

import pytest

from minipar.bench import train
from minipar.bench.workloads import WORKLOADS
from minipar.errors import UsageError


def test_rows_have_times_memory_and_settings():
    (row,) = train.bench_train("gpt-128", engines=["minipar"], rounds=1, steps=1)
    assert (row["engine"], row["model"], row["ranks"], row["threads"]) == (
        "minipar",
        "gpt-128",
        1,
        1,
    )
    assert 0 < row["step_ms"] < 60_000 and 20 < row["peak_mb"] < 10_000
    assert 20 < row["base_mb"] < row["peak_mb"]
    assert row["ratio"] is None and row["memory_ratio"] is None and row["note"] is None


def test_without_torch_its_row_has_a_note(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    mine, torch = train.bench_train("gpt-128", rounds=1, steps=1)
    assert mine["step_ms"] > 0 and torch["step_ms"] is None
    assert torch["note"] == "torch is not installed"


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(UsageError, match="gpt-256, gpt-128, mlp"):
        train.bench_train("gpt-9")
    with pytest.raises(UsageError, match="'gpt-9'"):
        train.models(["mlp", "gpt-9"])
    with pytest.raises(UsageError, match="minipar, torch"):
        train.bench_train("mlp", engines=["jax"])


def test_a_worker_that_dies_is_named():
    dead = train.start("minipar", "no-such-model", 1)
    with pytest.raises(UsageError, match="minipar process ended early"):
        train.ask("minipar", dead, 1)
    dead.communicate()


def test_all_models_can_be_asked_for():
    assert train.models(["all"]) == tuple(WORKLOADS) and train.models(["mlp"]) == ["mlp"]


def test_a_line_has_the_columns_of_the_head():
    mine, torch = (train._row(engine, "mlp", 2) for engine in train.ENGINES)
    mine |= {"step_ms": 12.34, "peak_mb": 56.7, "ratio": 0.891, "memory_ratio": 0.32}
    torch |= {"note": "torch is not installed"}
    head = "engine model threads ms/step × torch MB × torch"
    assert train.HEAD.split() == head.split()
    assert train.line(mine).split() == ["minipar", "mlp", "2", "12.3", "0.89", "57", "0.32"]
    assert len(train.line(mine)) == len(train.HEAD)
    assert train.line(torch).split(maxsplit=3) == ["torch", "mlp", "2", "torch is not installed"]
