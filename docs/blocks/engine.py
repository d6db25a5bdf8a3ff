"""Blocks about the engine and the models: ops, what a step takes, how large models are."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import minipar
from blocks.text import FIGURES, fenced, size
from minipar import Group, ops
from minipar.bench import overhead, tracing
from minipar.data.click_model import NUMBERS, TABLES, ClickModel
from minipar.events import recording
from minipar.models import GPT, MLP, ResNet, ViT, WideDeep
from minipar.parallel.data import DataParallel
from minipar.random import Init

TRAINED = FIGURES / "train_measured.json"  # what `minipar bench train --json` printed


def op_tables() -> str:
    """All ops, by file: from the first line of each docstring, and its words after "Keeps"."""
    files: dict[str, list[str]] = {}
    for name in ops.__all__:
        op = getattr(ops, name)
        module = sys.modules[op.__module__]
        idea = (module.__doc__ or "").split("\n")[0]
        head = f"\n### {module.__name__.rpartition('.')[2]}.py\n\n{idea}\n"
        rows = files.setdefault(head, ["| op | computes | keeps |", "|---|---|---|"])
        rows.append(f"| `{name}{_arguments(op)}` | {_formula(op)} | {_keeps(op)} |")
    return "\n".join("\n".join([head, *rows]) for head, rows in sorted(files.items())).lstrip()


def op_overhead() -> str:
    """The stored measurements of single ops."""
    rows = _measured(1)
    return fenced("\n".join(overhead.line(row) for row in rows if "over_us" in row))


def trained() -> str:
    """The stored measurements of training steps, minipar's by torch's."""
    rows = _measured(1)
    lines = [
        "| model | threads | minipar | torch | step time | peak memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    of_torch = {(r["model"], r["threads"]): r for r in rows if r["engine"] == "torch"}
    for row in rows:
        peer = of_torch.get((row["model"], row["threads"]))
        if row["engine"] == "minipar" and peer is not None:
            lines.append(
                f"| {row['model']} | {row['threads']} "
                f"| {row['step_ms']:.3g} ms, {row['peak_mb']:.0f} MB "
                f"| {peer['step_ms']:.3g} ms, {peer['peak_mb']:.0f} MB "
                f"| {row['ratio']:.2f} × | {row['memory_ratio']:.2f} × |"
            )
    return "\n".join(lines)


def traced() -> str:
    """The stored measurements of steps with and without a tape."""
    rows = map(json.loads, (FIGURES / "trace_measured.json").read_text().splitlines())
    return fenced("\n".join([tracing.HEAD, *map(tracing.line, rows)]))


def trained_on_ranks() -> str:
    """The stored measurements of training steps, and epochs, on two ranks."""
    lines = [
        "| model | engine | strategy | step | epoch | by DDP's | communication | of it, waiting |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in _measured(2):
        epoch = "" if row["epoch_s"] is None else f"{row['epoch_s']:.2f} s"
        comm, wait = (
            "" if row[n] is None else f"{row[n]:.1%}".replace("%", " %")
            for n in ("comm_share", "wait_share")
        )
        lines.append(
            f"| {row['model']} | {row['engine']} | {row['strategy']} | {row['step_ms']:.3g} ms "
            f"| {epoch} | {row['ratio']:.2f} × | {comm} | {wait} |"
        )
    return "\n".join(lines)


def _measured(ranks: int) -> list[dict[str, Any]]:
    rows = map(json.loads, TRAINED.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["ranks"] == ranks]


def _arguments(op: Callable[..., Any]) -> str:
    """Names and defaults, without the annotations."""
    bare = []
    for p in inspect.signature(op).parameters.values():
        text = p.name if p.default is p.empty else f"{p.name}={_name(p.default)}"
        bare.append(f"*{text}" if p.kind is p.VAR_POSITIONAL else text)
    return f"({', '.join(bare)})"


def _name(default: Any) -> str:
    """A default as it is written; a function is called by its name."""
    return getattr(default, "__name__", None) or repr(default)


def _formula(op: Callable[..., Any]) -> str:
    """The first line of the docstring, or of that of the definition to which it points."""
    first = (op.__doc__ or "").split("\n")[0]
    points = re.match(r"`(\w+_definition)`", first)
    if points:
        return _formula(vars(sys.modules[op.__module__])[points[1]])
    return first.split("   ")[0].rstrip(".").replace("|", "\\|")


def _keeps(op: Callable[..., Any]) -> str:
    text = " ".join((op.__doc__ or "").split())
    found = re.search(r"Keeps (.+?)(?: until backward|[.;](?: |$))", text)
    if not found:
        raise ValueError(f"The docstring of {op.__name__} does not say what it 'Keeps ...'.")
    return found[1].replace("|", "\\|")


def model_sizes() -> str:
    """The parameters of each model, and the bytes that a rank sends to average their gradients."""
    text, images = np.zeros((1, 16), int), np.zeros((1, 28, 28, 1), np.float32)
    models: dict[str, tuple[Callable[[Init], Any], Callable[[int], Any]]] = {
        "`MLP`": (MLP, lambda rank: text),
        "`GPT`": (GPT, lambda rank: text),
        "`ViT`": (ViT, lambda rank: images),
        "`ResNet`": (partial(ResNet, channels=1), lambda rank: images),
        "`WideDeep`, `sparse=False`": (partial(_wide_deep, sparse=False), _clicks),
        "`WideDeep`, 128 rows a rank": (partial(_wide_deep, sparse=True), _clicks),
    }
    head = "| model | parameters | in float32 | sent by each of 4 ranks in a step |"
    rows = [head, "|---|" + "---:|" * 3]
    for name, (make, batch) in models.items():
        n = sum(x.data.size for x in make(Init()).parameters())
        rows.append(f"| {name} | {n:,} | {size(4 * n)} | {size(_sent_in_a_step(make, batch))} |")
    return "\n".join(rows)


def _wide_deep(init: Init, sparse: bool) -> WideDeep:
    return WideDeep(init, TABLES, NUMBERS, sparse=sparse)


def _clicks(rank: int) -> tuple[np.ndarray, np.ndarray]:
    rows = ClickModel().rows(128 * rank, 128)
    return rows.dense, rows.ids


def _sent_in_a_step(make: Callable[[Init], Any], batch: Callable[[int], Any]) -> int:
    """By the rank that sends most, while four of them average their gradients."""

    def work(group: Group) -> int:
        model = make(Init())
        parallel = DataParallel(model, group)
        model(batch(group.rank)).sum().backward()
        with recording() as log:
            parallel.sync_gradients()
        return sum(event.nbytes for event in log)

    return max(minipar.run(work, 4))


BLOCKS = (op_tables, op_overhead, trained, traced, trained_on_ranks, model_sizes)
