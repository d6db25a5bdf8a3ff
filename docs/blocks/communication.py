"""Blocks about collectives: what they cost, in formulas, counted, and measured."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

import minipar
from blocks.text import ALPHA, BETA, FIGURES, GAMMA, MB, fenced, size, time
from minipar import Group, cost
from minipar.bench import comm_table
from minipar.comm.algorithms import ALGORITHMS
from minipar.comm.choose import choose
from minipar.events import recording
from minipar.trace.chunks import chunk_snapshots, chunk_text

MEASURED = FIGURES / "comm_measured.json"  # what `minipar bench comm --json` printed


def cost_table() -> str:
    """The ring all-reduce in messages, bytes and predicted time."""
    rows = [
        "| ranks | array | messages | sent by each rank | added | predicted |",
        "|" + "---:|" * 6,
    ]
    for p in (2, 4, 8):
        for n in (1024, MB, 100 * MB):
            c = cost.ring_all_reduce(p, n)
            seconds = c.seconds(ALPHA, BETA, GAMMA)
            rows.append(
                f"| {p} | {size(n)} | {c.messages} | {size(c.sent)} | {size(c.added)} "
                f"| {time(seconds)} |"
            )
    return "\n".join(rows)


def naive_against_ring() -> str:
    """Bytes that were really sent: all through rank 0, and round the ring."""
    n = 64 * 840 * 8  # float64; 840 can be divided by 2 to 8, and the ring is for large arrays
    head = (
        "| ranks | busiest rank, through rank 0 | busiest rank, ring | all ranks together, each |"
    )
    rows = [head, "|" + "---:|" * 4]
    for p in (2, 4, 8):
        naive, ring = (_bytes_sent(p, n // 8, algorithm) for algorithm in ("naive", "ring"))
        assert sum(naive) == sum(ring)
        rows.append(f"| {p} | {max(naive) / n:g} n | {max(ring) / n:g} n | {sum(ring) / n:g} n |")
    return "\n".join(rows)


def formulas(op: str) -> str:
    """Every algorithm of one collective: its formula, and what that is for 7 and 8 ranks."""
    rows = ["| `algorithm=` | takes | 7 ranks | 8 ranks |", "|---|---|---|---|"]
    for algorithm in ALGORITHMS[op]:
        text = getattr(cost, f"{algorithm}_{op}").__doc__
        rows.append(f"| `{algorithm}` | {text} | {_counts(op, algorithm, 7)} "
                    f"| {_counts(op, algorithm, 8)} |")  # fmt: skip
    return "\n".join(rows)


def choices() -> str:
    """What is taken if no algorithm is named, by what the ranks have in common."""
    kinds = {"process, one host": "process", "hosts, mpi": "hosts", "local": "local"}
    rows = [
        f"| call | {' | '.join(kinds)} |",
        "|---" * (1 + len(kinds)) + "|",
    ]
    for op in ALGORITHMS:
        cells = []
        for medium in kinds.values():
            small, large = (choose(op, nbytes, 8, medium) for nbytes in (0, 1 << 30))
            cells.append(f"`{small}`" if small == large else f"`{small}`, `{large}`")
        rows.append(f"| `{op}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def ring_steps(ranks: str) -> str:
    """The states of the ring as text."""
    return fenced(chunk_text(chunk_snapshots("all_reduce", "ring", int(ranks))))


def measured(*ops: str) -> str:
    """The stored measurements of these calls, as `minipar bench comm` prints them."""
    rows = [row for row in measured_rows() if "fit" in row or row["op"] in ops]
    return fenced("\n".join(comm_table.lines(rows)))


def measured_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in MEASURED.read_text(encoding="utf-8").splitlines()]


def measured_hash() -> str:
    return hashlib.sha256(MEASURED.read_bytes()).hexdigest()


def _bytes_sent(p: int, n: int, algorithm: str) -> list[int]:
    def work(group: Group) -> int:
        with recording() as log:
            group.all_reduce(np.ones(n), algorithm=algorithm)
        return sum(event.nbytes for event in log)

    return minipar.run(work, p)


def _counts(op: str, algorithm: str, p: int) -> str:
    """A formula's three numbers, in messages and arrays."""
    messages, sent, added = cost.of(op, algorithm, p, 1)
    parts = [f"{messages}α", f"{sent:.3g}nβ" if sent else "", f"{added:.3g}nγ" if added else ""]
    return " + ".join(filter(None, parts))


BLOCKS = (cost_table, naive_against_ring, formulas, choices, ring_steps, measured)
