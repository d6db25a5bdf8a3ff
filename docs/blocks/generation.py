"""Blocks about writing: the work for a token, what ranks keep and send, and what was measured."""

from __future__ import annotations

import json

import numpy as np

import minipar
from blocks.text import FIGURES, size
from minipar.comm.group import Group
from minipar.events import recording
from minipar.models import GPT, Reader
from minipar.nn import ONE_RANK
from minipar.parallel.generation import StageReader
from minipar.parallel.mesh import Mesh
from minipar.parallel.tensor_layers import TensorKit
from minipar.tensor import no_grad
from minipar.testing.flops import counting_products

LENGTHS = (1, 8, 16, 32, 64)
LAYOUTS = ((1, 1), (1, 2), (1, 4), (2, 1), (4, 1), (2, 2))  # pp, tp


def generation_work() -> str:
    """Multiplications for one token of the default GPT, counted."""
    model, rows = GPT(minipar.Init()), [
        "| token number | rows, with a cache | multiplications | rows, without | multiplications "
        "| times as many |",
        "|" + "---:|" * 6,
    ]  # fmt: skip
    with counting_products(model) as counter, no_grad():
        for n in LENGTHS:
            reader = Reader(model)
            if n > 1:
                reader.read(np.zeros((1, n - 1), int))
            counter[0] = 0
            reader.read(np.zeros((1, 1), int))
            cached, counter[0] = counter[0], 0
            model(np.zeros((1, n), int))
            cells = (n, 1, f"{cached:,}", n, f"{counter[0]:,}", f"{counter[0] / cached:.1f}")
            rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def one_token(group: Group, pp: int, tp: int) -> tuple[int, int, int]:
    """Bytes of this rank's cache; messages and bytes that it sends for a token."""
    mesh = Mesh(group, pp=pp, tp=tp)
    weights = GPT(minipar.Init()).state_dict()
    model = GPT(minipar.Init(), kit=TensorKit(mesh.tp) if tp > 1 else ONE_RANK)
    reader = StageReader(model, mesh, weights)
    reader.next(np.array([[3, 1, 4]]), lambda logits: 1)
    with recording() as log:
        reader.next(np.array([[1]]), lambda logits: 5)
    return reader.nbytes, len(log), sum(event.nbytes for event in log)


def generation_layouts() -> str:
    """The default GPT on some layouts; of the ranks that which has, or sends, most."""
    rows = [
        "| pp | tp | ranks | cache of a rank | messages of a rank for a token | bytes |",
        "|" + "---:|" * 6,
    ]
    for pp, tp in LAYOUTS:
        found = minipar.run(one_token, pp * tp, args=(pp, tp))
        kept, messages, sent = (max(column) for column in zip(*found))
        rows.append(f"| {pp} | {tp} | {pp * tp} | {size(kept)} | {messages} | {sent:,} |")
    return "\n".join(rows)


def generation_measured() -> str:
    """The stored rows of `minipar bench generate`."""
    table = [
        "| model | engine | a token | tokens/s | by uncached | by torch |",
        "|---|---|" + "---:|" * 4,
    ]
    for text in (FIGURES / "generation_measured.json").read_text().splitlines():
        row = json.loads(text)
        table.append(
            f"| {row['model']} | {row['engine']} | {row['token_ms']:.2f} ms "
            f"| {row['tokens_per_s']:.0f} | {row['by_uncached']:.2f} × | {row['by_torch']:.2f} × |"
        )
    return "\n".join(table)


BLOCKS = (generation_work, generation_layouts, generation_measured)
