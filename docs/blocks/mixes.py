"""Blocks about what comes together: ZeRO in the stages of a pipeline."""

from __future__ import annotations

from minipar import cost

MB = 2**20


def zero_in_a_pipeline() -> str:
    """What a rank sends and holds of a stage: by formula, and for a quarter of GPT-2's blocks."""
    d, b, p, m, k = 768, 4, 4, 16, 2  # features; bytes of a number; replicas; parts; Adam
    u = (12 * d * d + 13 * d) * b
    n, t = 3 * u, 4 * d * d * b
    ways = [
        ("stage 1", cost.zero1_sent, cost.zero1_sent(p, n), cost.zero1_kept(p, n, k)),
        (
            "stage 2",
            cost.zero2_piped_sent,
            cost.zero2_piped_sent(p, n, m),
            cost.zero2_kept(p, n, k) + cost.zero2_passing(t, t),
        ),
        (
            "stage 3",
            cost.zero3_piped_sent,
            cost.zero3_piped_sent(p, n, m),
            cost.zero3_kept(p, n, k) + cost.zero3_passing(u, t),
        ),
    ]
    head = f"sent, {m} micro-batches | held at the most"
    rows = [f"| | sent by a rank in a step | {head} |", "|---|---|---:|---:|"]
    for name, formula, sent, held in ways:
        rows.append(f"| {name} | {formula.__doc__} | {sent / MB:,.0f} MB | {held / MB:,.0f} MB |")
    return "\n".join(rows)


BLOCKS = (zero_in_a_pipeline,)
