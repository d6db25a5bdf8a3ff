"""The row of `minipar verify` about tracing: is what a trace says all that happened?

A GPT is trained on 2 · 2 · 2 ranks, traced (comm/tracing.py) and counted (`recording`), for some
steps. What each rank wrote down by itself must fit together: every pair of ranks received what was
sent to it, call by call, and both are what was counted; what began also ended, and not earlier.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.comm.tracing import tracing
from minipar.config import Config
from minipar.errors import said
from minipar.events import Event, recording
from minipar.testing.strategies import PATIENCE_S
from minipar.trace.trace_file import Trace, load
from minipar.training import Trainer
from minipar.verify_layouts import SMALL

NAME = "trace"
RANKS = 8
CONFIG = replace(SMALL, dp=2, pp=2, tp=2, steps=2)

Traffic = Counter[tuple[int, int, str, int]]  # (from, to, call, bytes): how many of them


class Gap(NamedTuple):
    """How many entries are missing, too many or wrong, and the first of them."""

    entries: int
    where: str


def rows(backends: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each backend, as those of `verify.verify`; max_error is the number of entries."""
    for backend in backends:
        yield _row(backend)


def _row(backend: str) -> dict[str, Any]:
    begun, error, found = time.perf_counter(), None, Gap(0, "")
    try:
        with TemporaryDirectory() as folder:
            counted = run(
                traced, RANKS, args=(CONFIG, folder), backend=backend, timeout_s=PATIENCE_S
            )
            found = gap(load(folder), sum(map(Counter, counted), Traffic()))
    except Exception as failed:  # of any kind: it is a row all the same
        error = f"{type(failed).__name__}: {said(failed)}"
    return {
        "strategy": NAME,
        "layout": "dp=2 pp=2 tp=2",
        "backend": backend,
        "ranks": RANKS,
        "max_error": None if error else float(found.entries),
        "tolerance": 0.0,
        "ok": not error and not found.entries,
        "where": found.where,
        "error": error,
        "seconds": time.perf_counter() - begun,
    }


def traced(group: Group, config: Config, folder: str) -> dict[tuple[int, int, str, int], int]:
    """Train, and leave a trace in the folder.  Returns: the messages that left, as counted."""
    with tracing(group, folder), recording() as log:
        trainer = Trainer(group, config)
        for _ in range(config.steps):
            trainer.train_step()
    return dict(traffic(log))


def traffic(events: Iterable[Event]) -> Traffic:
    return Counter((e.rank, e.peer, e.op, e.nbytes) for e in events)


def gap(trace: Trace, counted: Traffic) -> Gap:
    """What a trace lacks, or has too much, beside what was counted."""
    sent = traffic(m for rank in trace.ranks for m in rank.messages)
    got = traffic(m for rank in trace.ranks for m in rank.receipts)
    entries, where = 0, ""
    for what, seen in (("sent", sent), ("received", got)):
        apart = {key: seen[key] - counted[key] for key in seen | counted}
        apart = {key: n for key, n in apart.items() if n}
        entries += sum(map(abs, apart.values()))
        for (rank, peer, op, nbytes), n in apart.items():
            more = f"{abs(n)} too {'many' if n > 0 else 'few'}"
            where = where or f"{op} of {nbytes} bytes from rank {rank} to {peer}, {what}: {more}"
    for one in trace.ranks:
        rows: list[Any] = [*one.spans, *one.calls, *one.messages, *one.receipts]
        for row in rows:
            if not one.begin <= row.begin <= row.end <= one.end:
                entries, where = entries + 1, where or f"rank {one.rank}: the times of {row}"
    return Gap(entries if counted else 1, where if counted else "nothing was sent at all")
