"""The blocks about training on a GPU: what `minipar bench train --device cuda --save` measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from blocks.text import FIGURES

NOT_YET = "Nothing is stored in `docs/figures/gpu_training.json` yet."
MEASURED = FIGURES / "gpu_training.json"


def gpu_training_machine() -> str:
    """What they were measured on."""
    rows = _stored()
    if not rows:
        return NOT_YET
    versions = {name: row[name] for row in rows for name in ("cupy", "torch") if name in row}
    return f"{rows[0]['device']}, CuPy {versions['cupy']}, torch {versions['torch']}."


def gpu_training_table() -> str:
    """A line for each engine and precision."""
    if not _stored():
        return ""
    head = "| model | engine | precision | ms | × torch | MB | × torch | launches | busy ms | MFU |"
    return "\n".join([head, "|---|---|---|" + "---:|" * 7, *map(_line, _stored())])


def _stored() -> list[dict[str, Any]]:
    if not MEASURED.exists():
        return []
    return json.loads(MEASURED.read_text(encoding="utf-8"))


def _line(row: Mapping[str, Any]) -> str:
    start = f"| {row['model']} | {row['engine']} | {row['precision']} |"
    if row["note"] is not None:
        return f"{start} {row['note']} |" + " |" * 6
    time, memory = (f"{row[r]:.2f}" if r in row else "" for r in ("ratio", "memory_ratio"))
    return (
        f"{start} {row['step_ms']:.1f} | {time} | {row['reserved_mb']:.0f} | {memory} "
        f"| {row['launches']} | {row['busy_ms']:.1f} | {100 * row['mfu']:.1f} % |"
    )


BLOCKS = (gpu_training_machine, gpu_training_table)
