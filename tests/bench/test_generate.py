import importlib.util

import pytest

from minipar.bench import generate
from minipar.errors import UsageError


@pytest.mark.slow
def test_rows_have_speeds_and_ratios(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    cached, uncached, torch = generate.bench_generate("gpt-128", rounds=1)
    assert (cached["engine"], cached["model"], cached["tokens"]) == ("cached", "gpt-128", 56)
    assert cached["tokens_per_s"] == 1e3 / cached["token_ms"]
    assert cached["by_uncached"] == cached["token_ms"] / uncached["token_ms"]
    assert uncached["by_uncached"] == 1 and uncached["by_torch"] is None
    assert torch["note"] == "torch is not installed" and torch["token_ms"] is None


@pytest.mark.parametrize(
    "options, words",
    [
        ({"model": "mlp"}, "gpt-256, gpt-128, not 'mlp'"),
        ({"engines": ["jax"]}, "'jax'; use cached, uncached, torch-cached"),
        ({"rounds": 0}, "at least 1 thread"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        generate.bench_generate(**options)


def test_a_line_has_the_columns_of_the_head():
    mine, torch = (generate._row(engine, "gpt-128", 2) for engine in ("cached", "torch-cached"))
    mine |= {"token_ms": 1.5, "tokens_per_s": 666.7, "by_uncached": 0.25, "by_torch": 1.125}
    torch |= {"note": "torch is not installed"}
    assert len(generate.line(mine)) == len(generate.HEAD)
    assert generate.line(mine).split() == ["cached", "gpt-128", "2", "1.50", "667", "0.25", "1.12"]
    assert generate.line(torch).endswith("2  torch is not installed")
