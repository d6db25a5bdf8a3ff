"""The figures of tensor_parallel.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minipar.trace.block_figure import draw_heads, draw_pair, draw_positions


def pair(path: Path) -> None:
    draw_pair().savefig(path)


def heads(path: Path) -> None:
    draw_heads().savefig(path)


def positions(path: Path) -> None:
    draw_positions().savefig(path)


MADE: dict[str, Callable[[Path], None]] = {
    "tensor_pair.png": pair,
    "tensor_heads.png": heads,
    "tensor_positions.png": positions,
}
