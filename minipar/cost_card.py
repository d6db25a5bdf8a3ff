"""The cost card: what a step was expected to cost, beside what it did.

    a step           expected     measured
    time              41.0 ms      47.2 ms
    sent dp            1.6 MB       1.6 MB    31 % of the time
    sent tp            4.1 MB       4.1 MB    12 % of the time
    bubble             20.0 %       27.1 %
    memory            81.2 MB      88.0 MB    of the rank that needs most

Expected is what formulas say before the first step (expected.py, forecast.py); a dash is where
there is none, or nothing is counted: in NCCL's own collectives. Bytes are those out of a rank, the
mean over the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minipar.comm.host_memory import in_words
from minipar.config import Config
from minipar.expected import Expected
from minipar.forecast import Need

Row = dict[str, Any]


def card(
    c: Config, expected: Expected, needs: Sequence[Need], result: Mapping[str, Any]
) -> list[Row]:
    """Rows of what, expected, measured (None: there is none), unit, and share of the time.

    result: of rank 0, with what `Ledger.summary` and `links` have.
    """
    links = result["links"]  # None: of ranks that do not step together, or where time is virtual
    seconds = None if links is None else expected.seconds(links)
    rows = [_row("time", seconds, result["step_seconds"], "s")]
    for axis, measured in result["sent"].items():
        found, share = expected.sent.get(axis), result["share"].get(axis)
        wanted = None if found is None else found.nbytes
        seen = None if c.backend == "nccl" and axis != "pp" else measured
        rows.append(_row(f"sent {axis}", wanted, seen, "bytes", share))
    if c.pp > 1:
        rows.append(_row("bubble", expected.bubble, result["waiting"], "share"))
    if max(result["memory"]):
        rows.append(_row("memory", _memory(c, needs), max(result["memory"]), "bytes"))
    return rows


def _memory(c: Config, needs: Sequence[Need]) -> float:
    """Of the rank that needs most; of threads, which are one process, the mean."""
    if c.backend != "local":
        return max(need.all for need in needs)
    steps = sum((need.all - need.python) * need.ranks for need in needs)
    return needs[0].python + steps / sum(need.ranks for need in needs)


def _row(
    what: str, expected: float | None, measured: float | None, unit: str, share: float | None = None
) -> Row:
    return {
        "what": what, "expected": expected, "measured": measured, "unit": unit, "share": share,
    }  # fmt: skip


def table(rows: Sequence[Row]) -> list[str]:
    """The card as lines."""
    lines = [f"{'a step':13s}{'expected':>12s}{'measured':>12s}"]
    for row in rows:
        numbers = "".join(f"{_shown(row[kind], row['unit']):>12s}" for kind in KINDS)
        share = "" if row["share"] is None else f"    {row['share']:.0%} of the time"
        lines.append(f"{row['what']:13s}{numbers}{share}")
    return lines


KINDS = ("expected", "measured")


def _shown(x: float | None, unit: str) -> str:
    if x is None:
        return "-"
    if unit == "share":
        return f"{x:.1%}"
    if unit == "bytes":
        return in_words(x)
    return f"{x * 1e3:.1f} ms" if x < 10 else f"{x:.1f} s"
