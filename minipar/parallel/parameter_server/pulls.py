"""A pull: which arrays the answers of all servers go into, and a push: who gets which gradient.

    model's arrays    up.weight      up.bias  ...      deep.weight, of which ids 3, 7 and 8
    server 0          [0:40] ─ out=            ┐       3
    server 1          [40:80] ─ out=           ┴ one bundle, copied out   7, 8

Lone keys and rows are received into their place, a slice of it if the parameter is cut. Ids rise,
so each server's are a piece of them, and so are the rows it sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minipar import spans
from minipar.array import Array, describe, to_numpy
from minipar.errors import Diverged, ShapeMismatch, UsageError
from minipar.parallel.parameter_server import wire
from minipar.parallel.parameter_server.keys import Key, Shard
from minipar.parallel.parameter_server.lines import Line, Question, take
from minipar.parallel.parameter_server.payload import Values, not_finite, parts_of
from minipar.parallel.parameter_server.wire import Head
from minipar.parallel.parameter_server.worker import Worker
from minipar.sparse import RowGradient

Rows = Mapping[str, tuple[np.ndarray, Array]]  # of a table: ids, rising, and the rows to be filled


class Pull(NamedTuple):
    """A pull under way."""

    asked: list[Question]
    into: Mapping[str, Array]
    rows: Rows


def ask(worker: Worker, clock: int, into: Mapping[str, Array], rows: Rows) -> Pull:
    """Ask all servers for the weights that belong into these arrays, and for these rows.

    into: the array of each dense parameter, or none at all.
    """
    kind = wire.PULL if into else wire.ROWS
    asked = []
    for line in worker.lines:
        outs = [_place(line.shard, bundle, into) for bundle in line.shard.bundles] if into else []
        counts, ids = [], []
        for i in line.shard.tables:
            key = line.shard.keys[i]
            wanted, filled = rows.get(key.parameter, (np.empty(0, np.int64), None))
            a, b = _part(key, wanted)
            counts.append(b - a)
            if b > a:
                assert filled is not None
                ids.append(wanted[a:b] - key.start)
                outs.append(filled[a:b])
        asked.append(line.ask(Head(kind, clock=clock), counts, ids, outs))
    return Pull(asked, into, rows)


def finish(worker: Worker, pull: Pull) -> None:
    """Wait for the answers.  After: the arrays are filled, and `worker` has their versions."""
    for q, answer in zip(pull.asked, take(pull.asked)):
        keys = q.line.shard.keys
        worker.versions |= zip((key.name for key in keys), answer.tail)
        if q.head.kind == wire.ROWS:
            continue
        q.line.pulled = answer.head.version
        spans.mark("pulled", q.line.rank, q.line.pulled)
        for bundle, vector in zip(q.line.shard.bundles, answer.arrays):
            if len(bundle) > 1:
                mine = [keys[i] for i in bundle]
                for key, part in zip(mine, parts_of(vector, mine)):
                    key.of(pull.into[key.parameter])[...] = part


def _place(shard: Shard, bundle: Sequence[int], into: Mapping[str, Array]) -> Array | None:
    """Where a lone key is received; None for a bundle of several."""
    if len(bundle) > 1:
        return None
    key = shard.keys[bundle[0]]
    return key.of(into[key.parameter]).reshape(-1)


def _part(key: Key, ids: np.ndarray) -> tuple[int, int]:
    """Which of the ids, which rise, are rows of this key."""
    a, b = np.searchsorted(ids, [key.start, key.stop])
    return int(a), int(b)


# -- the other way ----------------------------------------------------------------------------


def in_host_memory(g: Any) -> Any:
    """An array, or a RowGradient, from wherever it is."""
    if isinstance(g, RowGradient):
        return RowGradient(to_numpy(g.ids), to_numpy(g.rows), g.shape)
    return to_numpy(g)


def shared_out(lines: Sequence[Line], gradients: Mapping[str, Any]) -> list[Values]:
    """For each server, the parts of the gradients that belong to its keys."""
    return [_share(line.shard, gradients) for line in lines]


def _share(shard: Shard, gradients: Mapping[str, Any]) -> Values:
    values: Values = {}
    for i, key in enumerate(shard.keys):
        g = gradients.get(key.parameter)
        if isinstance(g, RowGradient):
            a, b = _part(key, g.ids)
            if b > a:
                values[i] = RowGradient(g.ids[a:b] - key.start, g.rows[a:b], key.shape)
        elif g is not None:
            values[i] = key.of(g)
    return values


def check(gradients: Mapping[str, Any], like: Mapping[str, Any], who: str) -> None:
    """like: the parameters.  Raises: UsageError, ShapeMismatch, which name the key and `who`."""
    for name, g in gradients.items():
        x = like.get(name)
        if x is None:
            raise UsageError(f"{who}: unknown key {name}; there are {', '.join(sorted(like))}.")
        if tuple(g.shape) != tuple(x.shape) or g.dtype != x.dtype:
            raise ShapeMismatch(
                f"{who}: the gradient of {name} is {describe(g)}, the parameter {describe(x)}."
            )
        if isinstance(g, RowGradient) and len(g.ids) and not 0 <= g.ids[0] <= g.ids[-1] < len(x):
            raise UsageError(
                f"{who}: the gradient of {name} has the rows {g.ids[0]} to {g.ids[-1]}, the table "
                f"has {len(x)}."
            )


def check_finite(values: Sequence[Values], lines: Sequence[Line], who: str) -> None:
    """Raises: Diverged, which names the key and `who`."""
    for line, own in zip(lines, values):
        bad = not_finite(own)
        if bad is not None:
            raise Diverged(
                f"{who}: the gradient of {line.shard.keys[bad].name} has NaN or infinity. Is the "
                'rate too high? Servers with on_nan="skip" leave such pushes out.'
            )
