"""Layouts of `minipar verify`: ways of sharing the work put together, two or three at a time.

    share     dp  zero1  zero2  zero3  overlap      over two replicas
    stages    naive  gpipe  1f1b  interleaved  zero-bubble
    layers    tp  sequence
    passes    accumulate  recompute
    servers   ps-sync  ps-ssp

One of two or three of these rows each: that is the list, and what `refusals` says cannot be is left
out of it. So a combination that comes to be allowed is verified from then on. Trained is a small
GPT in float64, by the loop of `minipar train`: AdamW, dropout, a norm that is clipped. On each rank
the losses, the norms, all weights, the optimizer's state and the loss on the validation data are
held against one rank.

All layouts of as many ranks are trained by the same processes, one after another; if that fails,
each is tried by itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np

from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.config import Config, check_given
from minipar.config import check as check_config
from minipar.errors import UsageError, said
from minipar.parallel.parameter_server import Roles
from minipar.recipes import find
from minipar.refusals import check
from minipar.strategies import serve_run
from minipar.testing.strategies import PATIENCE_S, TOLERANCE
from minipar.testing.training import largest_difference
from minipar.training import Trainer, alone

Outcome = dict[str, np.ndarray]
Options = Mapping[str, Any]

WAYS: Mapping[str, Mapping[str, Options]] = MappingProxyType(
    {
        "share": {
            "dp": {"dp": 2},
            "zero1": {"dp": 2, "zero": 1},
            "zero2": {"dp": 2, "zero": 2},
            "zero3": {"dp": 2, "zero": 3},
            "overlap": {"dp": 2, "overlap": True, "bucket_mb": 0.01},
        },
        "stages": {
            name: {"pp": 2, "schedule": name}
            for name in ("naive", "gpipe", "1f1b", "interleaved", "zero-bubble")
        },
        "layers": {"tp": {"tp": 2}, "sequence": {"tp": 2, "sequence_parallel": True}},
        "passes": {"accumulate": {"accumulate": 2}, "recompute": {"recompute": True}},
        "servers": {"ps-sync": {"ps": "sync"}, "ps-ssp": {"ps": "ssp", "staleness": 0}},
    }
)
SMALL = Config(
    layers=2, d=16, heads=2, block=8, batch=8, steps=4, warmup=2, eval_batches=2, dropout=0.1,
    clip=0.5, dtype="float64", data=__file__,
)  # fmt: skip


def layouts(most: int = 3) -> dict[str, Config]:
    """Every combination of two to `most` ways that there is, by name, such as "zero1+1f1b+tp"."""
    found = {}
    for k in range(2, most + 1):
        for kinds in combinations(WAYS.values(), k):
            for names in product(*kinds):
                options: dict[str, Any] = {}
                for kind, name in zip(kinds, names):
                    options |= kind[name]
                if _exists(options):
                    found["+".join(names)] = replace(SMALL, **options)
    return found


def _exists(options: Options) -> bool:
    config = replace(SMALL, **options)
    try:
        check_config(config)
        check_given(config, options)
        check(config)
    except UsageError:
        return False
    return True


def rows(chosen: Mapping[str, Config], backend: str) -> Iterator[dict[str, Any]]:
    """A row for each layout, as those of `verify.verify`."""
    if not chosen:
        return
    expected = run(_trained, 1, args=([alone(SMALL)],))[0][0]
    by_ranks: dict[int, dict[str, Config]] = {}
    for name, config in chosen.items():
        by_ranks.setdefault(config.ranks, {})[name] = config
    for ranks, some in sorted(by_ranks.items()):
        yield from _rows_of(some, ranks, backend, expected)


def _rows_of(
    some: Mapping[str, Config], ranks: int, backend: str, expected: Outcome
) -> Iterator[dict[str, Any]]:
    """Of layouts of so many ranks: together, or, if one of them fails, each by itself."""
    begun = time.perf_counter()
    try:
        outcomes = _on_ranks(list(some.values()), ranks, backend)
    except Exception as failed:
        if len(some) > 1:
            for name, config in some.items():
                yield from _rows_of({name: config}, ranks, backend, expected)
            return
        outcomes = [f"{type(failed).__name__}: {said(failed)}"]
    seconds = (time.perf_counter() - begun) / len(some)
    for (name, config), found in zip(some.items(), outcomes):
        yield _row(name, config, backend, found, expected, seconds)


def _on_ranks(configs: Sequence[Config], ranks: int, backend: str) -> list[Any]:
    """What each layout comes to: a list of outcomes, by worker."""
    told = run(_trained, ranks, args=(configs,), backend=backend, timeout_s=PATIENCE_S)
    return [[one for one in by_rank if one is not None] for by_rank in zip(*told)]


def _trained(group: Group, configs: Sequence[Config]) -> list[Outcome | None]:
    return [_outcome(group, config) for config in configs]


def _outcome(group: Group, config: Config) -> Outcome | None:
    """What a run comes to on this rank; None on a server."""
    roles = Roles(group, config.servers) if config.ps != "none" else None
    if roles is not None and roles.is_server:
        with TemporaryDirectory() as folder:
            serve_run(config, roles, find(config.model).task.load(config)[0], Path(folder))
        return None
    trainer = Trainer(group, config, roles)
    metrics = [trainer.train_step() for _ in range(config.steps)]
    found = {
        "loss": np.array([m["loss"] for m in metrics]),
        "norm of the gradient": np.array([m["grad_norm"] for m in metrics]),
        **{f"weight {name}": a for name, a in trainer.weights().items()},
        **{f"state {name}": a for name, a in trainer.strategy.state_dict().items()},
        "validation loss": np.array(trainer.evaluate()["val_loss"]),
    }
    if roles is not None:
        trainer.strategy.close()  # type: ignore[attr-defined]
    return found


def _row(
    name: str, c: Config, backend: str, found: Any, expected: Outcome, seconds: float
) -> dict[str, Any]:
    error, max_error, where = None, math.inf, ""
    if isinstance(found, str):
        error = found
    else:
        max_error, where = largest_difference(found, [expected] * len(found))
    sizes = {"dp": c.dp, "pp": c.pp, "tp": c.tp}
    layout = " ".join(f"{axis}={n}" for axis, n in sizes.items() if n > 1)
    return {
        "strategy": name,
        "layout": layout if c.ps == "none" else f"ps={c.workers}+{c.servers}",
        "backend": backend,
        "ranks": c.ranks,
        "max_error": max_error if max_error < math.inf else None,
        "tolerance": TOLERANCE,
        "ok": max_error <= TOLERANCE,
        "where": where,
        "error": error,
        "seconds": seconds,
    }
