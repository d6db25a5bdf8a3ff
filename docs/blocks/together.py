"""Blocks of together.md: what layouts of a large model need and send, by the formulas."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import minipar
from blocks.text import ALPHA, BETA, MB, fenced
from minipar import cost
from minipar.config import Config
from minipar.expected import Expected, expected
from minipar.forecast import Need, forecast
from minipar.parallel.activations import Kept
from minipar.parallel.mesh import Mesh
from minipar.recipes import build_model, find
from minipar.trial import Trial, cuts_of

GB = 2**30
FLOPS = 20e12  # a second, of a rank of the example machine
MODEL = Config(layers=24, d=2048, heads=16, block=1024, batch=64, backend="mpi", bucket_mb=256)
TILE = 64  # queries whose keys are cut together (ops/attention.py)
LAYOUTS: dict[str, dict[str, Any]] = {
    "1 rank": {},
    "dp 8": {"dp": 8},
    "dp 8, accumulate 8": {"dp": 8, "accumulate": 8},
    "dp 8, zero 1": {"dp": 8, "zero": 1},
    "dp 8, zero 2": {"dp": 8, "zero": 2},
    "dp 8, zero 3": {"dp": 8, "zero": 3},
    "tp 8": {"tp": 8},
    "tp 8, sequence": {"tp": 8, "sequence_parallel": True},
    "pp 8, 32 micro": {"pp": 8, "microbatches": 32},
    "pp 8, 32 micro, recompute": {"pp": 8, "microbatches": 32, "recompute": True},
    "dp 2, pp 2, tp 2": {"dp": 2, "pp": 2, "tp": 2, "microbatches": 16},
    "dp 2, pp 2, tp 2, sequence": {
        "dp": 2,
        "pp": 2,
        "tp": 2,
        "microbatches": 16,
        "sequence_parallel": True,
    },
    "dp 4, tp 2": {"dp": 4, "tp": 2},
}


def planned(options: dict[str, Any]) -> tuple[Config, list[Need], Expected]:
    """What the model needs and costs in this layout; nothing of it is allocated."""
    c = replace(MODEL, **options)
    train = find("gpt").task.load(replace(c, data=__file__, block=8))[0]
    model = build_model(replace(c, tp=1), train, hollow=True)
    trial = trial_by_formula(c, cuts_of(c, model))
    return c, forecast(c, train, trial), expected(c, train, trial)


def trial_by_formula(c: Config, cuts: list[int]) -> Trial:
    """In place of a row that is sent through: what a row keeps, and takes."""
    t, d, h, p = c.block, c.d, c.heads, c.tp
    numbers = cost.sequence_block_numbers if c.sequence_parallel else cost.block_numbers
    of_block = 4 * numbers(p, t, d, h, (t + TILE) / 2)
    pieces = [0.0, *[of_block] * c.layers, 4 * (2 * t * d + t * 256 / p)]
    work = [0.0, *[3 * (24 * t * d * d + 2 * t * t * d)] * c.layers, 6 * t * d * 256]
    if c.pp == 1:
        cuts = [0, len(pieces)]
    between = 4 * t * d // (p if c.sequence_parallel else 1)
    kept = [
        Kept(between if a else 0, round(sum(pieces[a:b])), 4 * 4 * t * d // p)
        for a, b in pairwise(cuts)
    ]
    return Trial(kept, [sum(work[a:b]) / FLOPS for a, b in pairwise(cuts)], 0.0)


def layout_memory() -> str:
    """Memory of the rank that needs most, in GB."""
    columns = ("weights", "gradients", "optimizer", "activations", "buffers")
    rows = [f"| layout | {' | '.join(columns)} | all |", "|---|" + "---:|" * 6]
    for name, options in LAYOUTS.items():
        _, needs, _ = planned(options)
        most = max(needs, key=lambda need: need.step)
        sizes = [getattr(most, column) for column in columns]
        cells = " | ".join(f"{n / GB:.2f}" for n in (*sizes, most.step))
        rows.append(f"| {name} | {cells} |")
    return "\n".join(rows)


def layout_bytes() -> str:
    """Bytes out of a rank in a step by axis, the bubble, and the time on the example machine."""
    rows = ["| layout | dp | tp | pp | bubble | a step |", "|---|" + "---:|" * 5]
    for name, options in LAYOUTS.items():
        _, _, costs = planned(options)
        sent = [costs.sent[axis].nbytes if axis in costs.sent else 0 for axis in ("dp", "tp", "pp")]
        cells = " | ".join(f"{n / MB:,.0f} MB" if n else "-" for n in sent)
        bubble = f"{costs.bubble:.0%}" if costs.bubble else "-"
        alone = replaced_cores(costs).seconds({"alpha": ALPHA, "beta": BETA})
        rows.append(f"| {name} | {cells} | {bubble} | {alone:.2f} s |")
    return "\n".join(rows)


def replaced_cores(costs: Expected) -> Expected:
    """On a machine where each rank has its own."""
    return costs._replace(cores=1 << 20)


def bubbles() -> str:
    """The bubble of a pipeline of 4 stages by micro-batches."""
    micros = (1, 4, 8, 16, 32, 64)
    rows = [f"| micro-batches | {' | '.join(map(str, micros))} |", "|---|" + "---:|" * len(micros)]
    for name in ("1f1b", "interleaved", "zero-bubble"):
        v = 2 if name == "interleaved" else 1
        cells = [
            "-" if name == "interleaved" and m % 4 else f"{cost.of_schedule(name, 4, m, v)[0]:.0%}"
            for m in micros
        ]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def mesh_table() -> str:
    """A mesh as it prints itself."""

    def work(group: Any) -> str:
        return str(Mesh(group, dp=2, pp=2, tp=2))

    return fenced(minipar.run(work, 8)[0])


def model_size() -> str:
    """How large the model of the tables is."""
    (need,) = planned({})[1]
    numbers = need.weights / 4
    return (
        f"A GPT of {MODEL.layers} layers with {MODEL.d} features and {MODEL.heads} heads: "
        f"{numbers / 1e9:.2f} billion parameters. A batch is {MODEL.batch} sequences of "
        f"{MODEL.block} bytes, in float32, with AdamW."
    )


BLOCKS = (layout_memory, layout_bytes, bubbles, mesh_table, model_size)
