"""Blocks about ways of sharing the work: what each sends and keeps."""

from __future__ import annotations

import math
from collections.abc import Callable

from blocks.text import ALPHA, BETA, GAMMA, MB, size, time
from minipar import cost
from minipar.models import GPT
from minipar.random import Init


def data_parallel_table() -> str:
    """What each form of data parallel sends in a step, for a GPT of 25 million weights."""
    n, gradients, bucket = 96 * MB, 100, 8 * MB
    rows = [
        "| ranks | sent by each rank | messages, naive | messages, in buckets of 8 MB "
        "| naive takes | in buckets |",
        "|" + "---:|" * 6,
    ]
    for p in (2, 4, 8, 64):
        calls = gradients, n // bucket
        costs = [cost.ring_all_reduce(p, n / k) for k in calls]
        messages = [str(k * c.messages) for k, c in zip(calls, costs)]
        times = [time(k * c.seconds(ALPHA, BETA, GAMMA)) for k, c in zip(calls, costs)]
        sent = size(cost.data_parallel_bytes(p, n))
        rows.append(f"| {p} | {sent} | {' | '.join(messages + times)} |")
    return "\n".join(rows)


def less_bytes() -> str:
    """What the ways to say less send in a step, as a part of the bytes of GPT's gradients."""
    shapes = [x.shape for x in GPT(Init()).parameters()]
    c = sum(math.prod(shape) for shape in shapes)
    n, k = 4 * c, math.ceil(0.01 * c)
    ways: dict[str, Callable[[int], float]] = {
        "data parallel": lambda p: cost.ring_all_reduce(p, n).sent,
        "central, rank 0": lambda p: (p - 1) * n,
        "local SGD, k = 8": lambda p: cost.local_sgd_bytes(p, n, 8),
        "local SGD, k = 8, AdamW": lambda p: cost.local_sgd_bytes(p, 3 * n, 8),
        "float16": lambda p: cost.float16_bytes(p, c),
        "int8, block of 256": lambda p: cost.int8_bytes(p, c, 256),
        "top-k, 1 %": lambda p: cost.top_k_bytes(p, k, 4),
        "PowerSGD, r = 2": lambda p: cost.power_sgd_bytes(p, shapes, 2, 4),
    }
    ranks = (2, 4, 16, 64)
    rows = [f"| {c:,} numbers | {' | '.join(f'{p} ranks' for p in ranks)} |", "|---|" + "---:|" * 4]
    for name, sent in ways.items():
        rows.append(f"| {name} | {' | '.join(f'{sent(p) / n:.3g}' for p in ranks)} |")
    return "\n".join(rows)


def zero_formulas() -> str:
    """What each stage sends, keeps, and lets through."""
    rows = ["| | sent by a rank in a step | kept by a rank | passes through |", "|---|---|---|---|"]
    data_parallel = cost.data_parallel_bytes.__doc__
    rows.append(f"| data parallel | {data_parallel} | {cost.zero0_kept.__doc__} | |")
    for stage in (1, 2, 3):
        parts = (getattr(cost, f"zero{stage}_{what}", None) for what in ("sent", "kept", "passing"))
        rows.append(f"| stage {stage} | {' | '.join(f.__doc__ if f else '' for f in parts)} |")
    return "\n".join(rows)


def zero_sizes() -> str:
    """The most that a rank holds of GPT-2, by the formulas."""
    d, b = 768, 4  # features; bytes of a number
    t = 50257 * d * b
    u, r = (12 * d * d + 13 * d) * b, t + (1024 + 2) * d * b
    n, k = 12 * u + r, 2
    stages = {
        "data parallel": lambda p: cost.zero0_kept(p, n, k),
        "stage 1": lambda p: cost.zero1_kept(p, n, k),
        "stage 2": lambda p: cost.zero2_kept(p, n, k) + cost.zero2_passing(t, t),
        "stage 3": lambda p: cost.zero3_kept(p, n, k) + cost.zero3_passing(u, t, r),
    }
    ranks = (1, 2, 4, 8, 16, 64)
    rows = [f"| | {' | '.join(f'{p} ranks' for p in ranks)} |", "|---|" + "---:|" * len(ranks)]
    rows[0] = rows[0].replace("1 ranks", "1 rank", 1)
    for name, held in stages.items():
        rows.append(f"| {name} | {' | '.join(f'{held(p) / MB:,.0f} MB' for p in ranks)} |")
    return "\n".join(rows)


BLOCKS = (data_parallel_table, less_bytes, zero_formulas, zero_sizes)
