"""The block about the kernels: what `minipar bench kernels --json` measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from blocks.text import FIGURES

MEASURED = FIGURES / "gpu_kernels.json"
NAMES = (("cuda", "CUDA runtime"), ("cupy", "CuPy"), ("torch", "torch"))


def kernel_machine() -> str:
    """What they were measured on."""
    found = _stored()[0]
    versions = [f"{name} {found[key]}" for key, name in NAMES]
    return f"{found['device']}, {', '.join(versions)}."


def kernel_table(number: str) -> str:
    """The stored measurements of the kernels on one kind of number."""
    lines = ["| kernel | time | rate | of a copy | torch |", "|---|" + "---:|" * 4]
    return "\n".join(lines + [_line(row) for row in _stored()[1:] if row["float"] == number])


def _stored() -> list[dict[str, Any]]:
    return [json.loads(line) for line in MEASURED.read_text(encoding="utf-8").splitlines()]


def _line(row: Mapping[str, Any]) -> str:
    share = "" if row["of_copy"] is None else f"{100 * row['of_copy']:.0f} %"
    torch = "" if row["torch_ms"] is None else f"{row['torch_ms']:.3g} ms"
    rate = f"{row['rate']:.0f} {row['unit']}"
    return f"| {row['kernel']} | {row['ms']:.3g} ms | {rate} | {share} | {torch} |"


BLOCKS = (kernel_machine, kernel_table)
