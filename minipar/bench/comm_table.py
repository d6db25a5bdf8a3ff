"""What `bench comm` measured, for people: a line for each row, each as soon as it is there.

"predicted" is by the formula; "× gloo" says how many times as fast as gloo minipar is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

KB, MB = 2**10, 2**20


def lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The rows as the lines of a table, each as soon as its row is there."""
    headed = False
    for row in rows:
        if "fit" in row:
            yield from _machine_lines(row["fit"])
            continue
        if row["op"] is None:
            yield f"{row['backend']}: {row['note']}"
            continue
        if not headed:
            headed = True
            yield (
                f"{'call':15s}{'bytes':>9s}  {'backend':9s}{'algorithm':17s}{'time':>10s}"
                f"{'bus GB/s':>10s}{'predicted':>11s}{'× gloo':>9s}{'× openmpi':>11s}"
            )
        yield _line(row).rstrip()


def _machine_lines(fit: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{fit['ranks']} ranks on {fit['cores']} cores; median of {fit['rounds']} rounds in turn; "
        f"{', '.join(fit['versions'])}; {fit['memory']} memory"
    )
    alpha, beta, gamma = fit["alpha_s"], fit["beta_s_per_byte"], fit["gamma_s_per_byte"]
    yield (
        f"fitted: α = {_time(alpha)} a message, β = {_rate(beta)} sent, γ = {_rate(gamma)} added, "
        f"to within {fit['relative_error']:.0%}"
    )


def _line(row: Mapping[str, Any]) -> str:
    size = "" if row["bytes"] is None else _size(row["bytes"])
    start = f"{row['op']:15s}{size:>9s}  {row['backend']:9s}"
    if row["note"]:
        return f"{start}{row['algorithm'] or '':17s}{row['note']}"
    guess, ratio = row["predicted_seconds"], row["ratio"] or {}
    times = [f"{ratio[peer]:.2g}" if peer in ratio else "" for peer in ("gloo", "openmpi")]
    return (
        f"{start}{row['algorithm']:17s}{_time(row['seconds']):>10s}{row['bus_gb_s']:10.3g}"
        f"{'' if guess is None else _time(guess):>11s}{times[0]:>9s}{times[1]:>11s}"
    )


def _size(n: int) -> str:
    for unit, factor in (("MB", MB), ("KB", KB)):
        if n >= factor:
            return f"{n / factor:.4g} {unit}"
    return f"{n} B"


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def _rate(seconds_per_byte: float) -> str:
    return f"1/({1e-9 / seconds_per_byte:.3g} GB/s)" if seconds_per_byte else "0"
