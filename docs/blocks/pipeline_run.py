"""Blocks about pipelines that run: what stages store, and what was measured."""

from __future__ import annotations

import json

import minipar
from blocks.text import FIGURES
from minipar.comm.group import Group
from minipar.models import GPT
from minipar.ops import cross_entropy
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.schedule import named
from minipar.parallel.schedule_check import check
from minipar.parallel.schedule_time import Times, simulate
from minipar.random import Draw, Init

STAGES, MICROS = 4, 8


def _peak(group: Group, schedule: str, recompute: bool) -> int:
    model = GPT(Init(), vocab=16, block=4, layers=4, d=8, heads=2)
    pipeline = Pipeline(model, group, cross_entropy, schedule, recompute=recompute)
    ids = (16 * Init().normal("ids", (MICROS, 5), 1.0)).astype(int) % 16
    draw = Draw(0, 0, range(MICROS))
    pipeline.train(micro_batches(ids[:, :-1], ids[:, 1:], draw, MICROS))
    assert pipeline.last is not None
    return pipeline.last.peak


def pipeline_stored() -> str:
    """What stages have stored, counted in runs, and what the checker says."""
    head = " | ".join(f"stage {i}" for i in range(STAGES))
    rows = [f"| | {head} | the checker says |", "|---|" + "---:|" * STAGES + "---|"]
    for name in ("naive", "gpipe", "1f1b", "zero-bubble"):
        peaks = minipar.run(_peak, STAGES, args=(name, False))
        said = ", ".join(map(str, check(named(name, STAGES, MICROS)).peaks))
        rows.append(f"| {name} | {' | '.join(map(str, peaks))} | {said} |")
    return "\n".join(rows)


def pipeline_measured() -> str:
    """From figures/pipeline_measured.json."""
    found = json.loads((FIGURES / "pipeline_measured.json").read_text())
    rows = [
        "| | F, stage 0 and 1 | B, stage 0 and 1 | forward and backward | simulated "
        "| measured ÷ simulated | bubble | simulated | whole step |",
        "|---|" + "---:|" * 8,
    ]
    for name, run in found.items():
        (f0, b0), (f1, b1) = run["stage"]
        right = simulate(named(name, 2, 8), Times([f0, f1], [b0, b1]))
        numbers = [
            f"{f0:.1f}, {f1:.1f} ms", f"{b0:.1f}, {b1:.1f} ms", f"{run['ran_ms']:.0f} ms",
            f"{right.length:.0f} ms", f"{run['ran_ms'] / right.length:.3f}",
            f"{run['bubble']:.1%}", f"{right.bubble:.1%}", f"{run['step_ms']:.0f} ms",
        ]  # fmt: skip
        rows.append(f"| {name} | {' | '.join(numbers)} |")
    return "\n".join(rows)


BLOCKS = (pipeline_stored, pipeline_measured)
