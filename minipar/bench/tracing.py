"""What recording a run costs: steps of `minipar train gpt` with --trace, and without, in turn.

    model     ranks      plain     traced   ratio   records
    gpt-128       2     44.1 ms    44.5 ms  1.009       812

The same ranks do both: a step without, a step with, the next pair the other way round, so that a
machine that gets slower for a while gets slower for both. Putting the tape on, and writing the file
at the end, is not part of a step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.comm.tracing import tracing
from minipar.config import Config
from minipar.errors import UsageError
from minipar.spans import Tape
from minipar.training import Trainer

_GPT = Config(layers=4, heads=4, data=str(Path(__file__).parent), steps=10**6)
MODELS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "gpt-64": {"d": 64, "batch": 8, "block": 64},
        "gpt-128": {"d": 128, "batch": 8, "block": 64},
        "gpt-256": {"d": 256, "batch": 16, "block": 128},
    }
)


def bench_trace(
    model: str = "gpt-128", ranks: int = 1, rounds: int = 100, backend: str = "process"
) -> dict[str, Any]:
    """Time `rounds` pairs of steps, traced and not; ranks: replicas.

    Returns: model, ranks, backend, plain_ms and traced_ms (medians of all steps, on rank 0), ratio
    (the median over the pairs), records (that rank 0 kept of a step).
    Raises: UsageError for a model that there is not, or nothing to measure.
    """
    check([model], min(ranks, rounds))
    sizes: dict[str, Any] = {**MODELS[model], "batch": MODELS[model]["batch"] * ranks}
    config = replace(_GPT, dp=ranks, backend=backend, **sizes)
    with TemporaryDirectory() as folder:
        plain, traced, records = run(
            time_both, ranks, args=(config, rounds, folder), backend=backend
        )[0]
    return {
        "model": model,
        "ranks": ranks,
        "backend": backend,
        "plain_ms": statistics.median(plain),
        "traced_ms": statistics.median(traced),
        "ratio": statistics.median(b / a for a, b in zip(plain, traced)),
        "records": records,
    }


def check(models: Sequence[str], least: int) -> None:
    """Raises: UsageError if there is nothing to measure."""
    for model in models:
        if model not in MODELS:
            raise UsageError(f"bench trace is about {', '.join(MODELS)}, not {model!r}.")
    if least < 1:
        raise UsageError("bench trace needs at least 1 rank and 1 round.")


def time_both(
    group: Group, config: Config, rounds: int, folder: str
) -> tuple[list[float], list[float], int]:
    """Milliseconds of each step, plain and traced; and the records of one."""
    with tracing(group, folder):  # modules are called by their names, as in a traced run
        trainer = Trainer(group, config)
        trainer.train_step()
    found: dict[bool, list[float]] = {False: [], True: []}
    records = 0
    for number in range(rounds):
        for traces in (False, True) if number % 2 else (True, False):
            with tracing(group, folder) if traces else nullcontext() as tape:
                found[traces].append(_milliseconds(trainer))
                records = records if tape is None else _records(tape)
    return found[False], found[True], records


def _milliseconds(trainer: Trainer) -> float:
    begun = time.perf_counter()
    trainer.train_step()
    return (time.perf_counter() - begun) * 1e3


def _records(tape: Tape) -> int:
    messages = len(tape.messages) + len(tape.receipts)
    return len(tape.rows) + len(tape.collectives) + messages


HEAD = f"{'model':10s}{'ranks':>5s}{'backend':>10s}{'plain':>12s}{'traced':>12s}" + (
    f"{'ratio':>8s}{'records':>9s}"
)


def line(row: Mapping[str, Any]) -> str:
    """A row for people, under HEAD."""
    start = f"{row['model']:10s}{row['ranks']:5d}{row['backend']:>10s}"
    times = "".join(f"{row[name]:9.2f} ms" for name in ("plain_ms", "traced_ms"))
    return f"{start}{times}{row['ratio']:8.3f}{row['records']:9d}"
