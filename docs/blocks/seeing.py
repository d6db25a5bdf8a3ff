"""Blocks of seeing.md: a session of `minipar step`, and what a trace adds up to."""

from __future__ import annotations

from drawings_seeing import watched

from blocks.project import source
from blocks.text import fenced, said
from minipar.trace.totals import report


def stepped(script: str, ranks: str, commands: str) -> str:
    """A session with commands from a file beside the script, both in docs/examples."""
    words = ["step", "-n", ranks, "--width", "96", "--script", commands, f"{script}.py"]
    text = said(words)
    return fenced(f"$ minipar step -n {ranks} {script}.py\n{text}")


def on_three(name: str) -> str:
    """docs/examples/NAME.py, and what `minipar run` on 3 ranks says to it."""
    command = ["run", "-n", "3", "--backend", "local", f"{name}.py"]
    return (
        f"{source(name)}\n\n{fenced(f'$ minipar {chr(32).join(command)}{chr(10)}{said(command)}')}"
    )


def trace_totals() -> str:
    """The shares of each rank of the traced pipeline."""
    trace = watched()
    rows = report(trace, 0, trace.end)
    head = "| rank | computing | moving | waiting | sent along pp | along dp |\n" + 6 * "|---" + "|"
    lines = [
        f"| {row['rank']} | {row['computing']:.1%} | {row['moving']:.1%} | {row['waiting']:.1%} "
        f"| {row['bytes_sent']['pp'] / 1e6:.1f} MB | {row['bytes_sent']['dp'] / 1e6:.1f} MB |"
        for row in rows
    ]
    return "\n".join([head, *lines])


BLOCKS = (stepped, on_three, trace_totals)
