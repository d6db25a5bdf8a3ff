"""Blocks about tensor parallel: what a step sends, and what a rank holds."""

from __future__ import annotations

from blocks.text import MB
from minipar import cost

RANKS = (1, 2, 4, 8)


def tensor_formulas() -> str:
    """What is sent, and kept, as functions of `cost`."""
    rows = ["| | bytes |", "|---|---|"]
    for what, f in (
        ("a pair of column and row, sent", cost.tensor_pair_sent),
        ("a step of GPT, sent", cost.tensor_gpt_sent),
        ("the same with sequence parallel", cost.sequence_gpt_sent),
        ("weights, gradients and state, kept", cost.tensor_kept),
    ):
        rows.append(f"| {what} | {f.__doc__} |")
    return "\n".join(rows)


def tensor_sizes() -> str:
    """GPT-2 with 8 rows of 1024 positions in float32 and Adam, by the formulas."""
    d, t, b, layers = 768, 1024, 8, 12
    shared = layers * (12 * d * d + 7 * d) + 50257 * d  # numbers
    everywhere = layers * 6 * d + 2 * d + t * d  # norms, row biases, positions
    n, m, r = b * t * d * 4, b * t * 4, everywhere * 4
    whole = (shared + everywhere) * 4
    rows = [f"| | {' | '.join(f'{p} ranks' for p in RANKS)} |", "|---|" + "---:|" * len(RANKS)]
    rows[0] = rows[0].replace("1 ranks", "1 rank", 1)
    for name, values in (
        ("sent by a rank in a step", [cost.tensor_gpt_sent(p, n, m, layers) for p in RANKS]),
        ("with sequence parallel", [cost.sequence_gpt_sent(p, n, m, layers, r) for p in RANKS]),
        ("data parallel sends", [cost.data_parallel_bytes(p, whole) for p in RANKS]),
        ("weights, gradients, state", [cost.tensor_kept(p, whole, 2, r) for p in RANKS]),
    ):
        rows.append(f"| {name} | {' | '.join(f'{x / MB:,.0f} MB' for x in values)} |")
    return "\n".join(rows)


BLOCKS = (tensor_formulas, tensor_sizes)
