"""How long it takes to write a token, with a cache and without one, beside PyTorch with one.

All write the same text: a prompt of 8 bytes, and after it the likeliest bytes until the block is
full. Engines are processes that are asked in turn, as in train.py.

    cached         each token is one row through the model; keys and values are kept
    uncached       each token is the whole text once more
    torch-cached   as the first, in PyTorch
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from minipar.bench.train import start, time_in_turn
from minipar.bench.workloads import WORKLOADS
from minipar.bench.writing import PROMPT
from minipar.errors import UsageError

ENGINES = ("cached", "uncached", "torch-cached")
MODELS = tuple(name for name, work in WORKLOADS.items() if work.kind == "gpt")


def bench_generate(
    model: str = "gpt-256",
    engines: Sequence[str] = ENGINES,
    threads: int = 1,
    rounds: int = 5,
) -> list[dict[str, Any]]:
    """Time each engine writing a text, `rounds` times, in turn.

    Returns a row per engine: engine, model, threads, tokens (of a text), token_ms (the median over
    the texts, of the mean over a text), tokens_per_s, by_uncached and by_torch (its token_ms by
    theirs, None without them), note (why there are no numbers).
    Raises: UsageError for a name that there is not.
    """
    check(model, engines, min(threads, rounds))
    rows = {e: _row(e, model, threads) for e in engines}
    if importlib.util.find_spec("torch") is None and "torch-cached" in rows:
        rows["torch-cached"]["note"] = "torch is not installed"
    workers = {e: start(e, model, threads) for e in engines if rows[e]["note"] is None}
    try:
        times = time_in_turn(workers, {e: {} for e in workers}, rounds, 1)
    finally:
        for worker in workers.values():
            worker.communicate()  # the end of its input ends it
    for e in workers:
        row = rows[e]
        row["token_ms"] = each = statistics.median(times[e]) / row["tokens"]
        row["tokens_per_s"] = 1e3 / each
    for name, other in (("by_uncached", "uncached"), ("by_torch", "torch-cached")):
        if other in workers:
            for e in workers:
                rows[e][name] = rows[e]["token_ms"] / rows[other]["token_ms"]
    return list(rows.values())


def check(model: str, engines: Sequence[str], least: int) -> None:
    """Raises: UsageError if there is nothing to measure."""
    if model not in MODELS:
        raise UsageError(f"bench generate is about {', '.join(MODELS)}, not {model!r}.")
    if unknown := set(engines) - set(ENGINES):
        raise UsageError(f"There is no engine {min(unknown)!r}; use {', '.join(ENGINES)}.")
    if least < 1:
        raise UsageError("bench generate needs at least 1 thread and 1 round.")


def _row(engine: str, model: str, threads: int) -> dict[str, Any]:
    tokens = WORKLOADS[model].sizes["block"] - len(PROMPT)
    nothing = dict.fromkeys(("token_ms", "tokens_per_s", "by_uncached", "by_torch", "note"))
    return {"engine": engine, "model": model, "threads": threads, "tokens": tokens, **nothing}


HEAD = f"{'engine':14s}{'model':10s}{'threads':>8s}{'ms/token':>10s}{'tokens/s':>10s}" + (
    f"{'× uncached':>12s}{'× torch':>9s}"
)


def line(row: Mapping[str, Any]) -> str:
    """A row for people, under HEAD."""
    start = f"{row['engine']:14s}{row['model']:10s}{row['threads']:8d}"
    if row["note"]:
        return f"{start}  {row['note']}"
    by = ("" if row[name] is None else f"{row[name]:.2f}" for name in ("by_uncached", "by_torch"))
    uncached, torch = by
    speed = f"{row['token_ms']:10.2f}{row['tokens_per_s']:10.0f}"
    return f"{start}{speed}{uncached:>12s}{torch:>9s}"
