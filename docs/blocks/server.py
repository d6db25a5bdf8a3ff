"""Blocks about parameter servers: the rules in virtual time, keys, and bytes of tables."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
from drawings_server import RULES, SLOW, course

import minipar
from blocks.text import FIGURES, fenced, size
from minipar.events import recording
from minipar.models import WideDeep
from minipar.ops import binary_cross_entropy_with_logits
from minipar.optim import SGD
from minipar.parallel.parameter_server import ASYNC, Hollow, ParameterServer, Roles, serve
from minipar.parallel.parameter_server.keys import shards_of

PUSHES = 40


def server_rules() -> str:
    """What the rules make of a straggler, with the workers of the figures."""
    rows = [
        f"| | {PUSHES} pushes take | with a straggler | most clocks ahead "
        "| staleness, mean | most |",
        "|---|" + "---:|" * 5,
    ]
    for name in RULES:
        times = []
        for factor in (1.0, SLOW):
            found = course(name, factor)
            times.append(found.times[int(np.argmax(found.pushes() >= PUSHES))])
        report = found.report
        stale = [record.staleness for record in report.records]
        rows.append(
            f"| {name} | {times[0]:.0f} s | {times[1]:.0f} s | {report.most_ahead} "
            f"| {np.mean(stale):.1f} | {max(stale)} |"
        )
    return "\n".join(rows)


def server_replay() -> str:
    """The first pushes that the server recorded in async."""
    lines = ["worker   clock   computed with   applied to   staleness"]
    for record in course("async").report.records[:18]:
        numbers = f"{record.clock:8d}{record.pulled:16d}{record.applied:13d}{record.staleness:12d}"
        lines.append(f"{record.worker:4d}{numbers}")
    return fenced("\n".join(lines))


def server_keys() -> str:
    """The keys of a small wide & deep on two servers."""
    model = WideDeep(minipar.Init(), (40_000, 8_000), 13, d=16, hidden=(64,))
    rows = ["| server 0 | | server 1 | |", "|---|---:|---|---:|"]
    shards = shards_of(model, 2)
    columns = [[(f"`{key.name}`", size(key.nbytes)) for key in shard.keys] for shard in shards]
    for n in range(max(map(len, columns))):
        cells = [column[n] if n < len(column) else ("", "") for column in columns]
        rows.append(f"| {' | '.join(f'{name} | {nbytes}' for name, nbytes in cells)} |")
    rows.append(f"| in all | {size(shards[0].nbytes)} | | {size(shards[1].nbytes)} |")
    return "\n".join(rows)


def sgd(named: Iterable[tuple[str, minipar.Tensor]]) -> SGD:
    return SGD(named, lr=0.1)


def one_step(world: minipar.Group, rows: int, touched: int) -> int:
    """Bytes that leave this rank in a step of wide & deep in which so many rows are touched."""
    roles = Roles(world)
    with recording() as log:
        if roles.is_server:
            serve(roles, WideDeep(minipar.Init(), (rows,), 3, d=16), sgd, ASYNC)
        else:
            model = WideDeep(Hollow(), (rows,), 3, d=16)
            with ParameterServer(model, roles, sgd) as ps:
                ids = np.arange(touched)[:, None] * (rows // touched)
                ps.pull({name: model.rows(ids) for name in ps.tables})
                x = np.zeros((touched, 3), np.float32), ids
                binary_cross_entropy_with_logits(model(x), np.zeros(touched, "f")).backward()
                ps.step()
    return sum(event.nbytes for event in log)


def server_tables() -> str:
    """Bytes of a step, by the rows of the table and by those that are touched."""
    sizes, touched = (1_000, 10_000, 100_000), (16, 64, 256)
    rows = [
        f"| rows of the table | its size | {' | '.join(f'{k} rows touched' for k in touched)} |",
        "|---:|" + "---:|" * (1 + len(touched)),
    ]
    for n in sizes:
        sent = [sum(minipar.run(one_step, 2, args=(n, k))) for k in touched]
        rows.append(f"| {n:,} | {size(n * 17 * 4)} | {' | '.join(map(size, sent))} |")
    return "\n".join(rows)


def server_measured() -> str:
    """From figures/server_measured.json: what `bench ps` printed, then `bench train`."""
    text = (FIGURES / "server_measured.json").read_text(encoding="utf-8")
    found = list(map(json.loads, text.splitlines()))
    rows = ["| one worker, one server | bytes | time | speed |", "|---|---:|---:|---:|"]
    for row in found:
        if "what" in row:
            cells = f"{size(row['bytes'])} | {row['seconds'] * 1e3:.2f} ms | {row['gb_s']:.2f} GB/s"
            rows.append(f"| {row['what']} | {cells} |")
    rows += ["", "| a step of `mlp`, 2 workers | time | by DDP's |", "|---|---:|---:|"]
    for row in found:
        if "what" not in row:
            name = f"{row['engine']} {row['strategy']}"
            rows.append(f"| {name} | {row['step_ms']:.1f} ms | {row['ratio']:.2f} × |")
    return "\n".join(rows)


BLOCKS = (server_measured, server_rules, server_replay, server_keys, server_tables)
