"""Who writes what: of ranks that hold the same box of an array, one.

    held        rank 0  up[0:4] down[0:4]      rank 1  up[0:4] down[0:4]      rank 2  up[4:8] ...
    written     rank 0  up[0:4]                rank 1          down[0:4]      rank 2  up[4:8] ...

All tell all which boxes they have, and come to the same decision: each box, the largest first, goes
to that of its holders who has least to write. The strategies need not know of each other: replicas,
shards, slices and stages are all found out from what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minipar.comm.group import Group
from minipar.parallel.boxes import Box
from minipar.parallel.checkpoint.writer import Part
from minipar.parallel.held import Held, views

Key = tuple[str, Box]


class Having(NamedTuple):
    """That a rank has a box."""

    name: str
    box: Box
    nbytes: int
    equal: bool  # whether it does not matter who writes it; else it is the first that has it


class Plan(NamedTuple):
    """What is agreed on."""

    mine: frozenset[Key]  # what this rank writes
    names: frozenset[str]  # of all arrays that any rank has


def agree(held: Iterable[Held], group: Group | None) -> Plan:
    """Collective, over the group; None: this rank is alone.  Cost: an all_gather of the names."""
    having = [
        Having(h.name, box, box.size * h.array.dtype.itemsize, h.equal)
        for h in held
        for box, _ in views(h)
    ]
    told = [[_having(*fields) for fields in some] for some in gathered(having, group)]
    rank = 0 if group is None else group.rank
    mine = frozenset(key for key, writer in writers(told).items() if writer == rank)
    return Plan(mine, frozenset(h.name for some in told for h in some))


def writers(told: Sequence[Sequence[Having]]) -> dict[Key, int]:
    """The rank that writes each box.  told: by rank, what it has."""
    holders: dict[Key, list[int]] = {}
    found: dict[Key, Having] = {}
    for rank, some in enumerate(told):
        for having in some:
            holders.setdefault((having.name, having.box), []).append(rank)
            found.setdefault((having.name, having.box), having)
    load, chosen = [0] * len(told), {}
    for key in sorted(found, key=lambda key: (-found[key].nbytes, key)):
        ranks = holders[key]
        chosen[key] = min(ranks, key=lambda r: (load[r], r)) if found[key].equal else ranks[0]
        load[chosen[key]] += found[key].nbytes
    return chosen


def parts(held: Iterable[Held], plan: Plan) -> list[Part]:
    """What this rank writes, as views."""
    return [
        Part(h.name, h.shape, box, view)
        for h in held
        for box, view in views(h)
        if (h.name, box) in plan.mine
    ]


def gathered(mine: Any, group: Group | None) -> list[Any]:
    """By rank, what each has (what JSON can say).  Collective."""
    text = json.dumps(mine).encode()
    if group is None:
        return [json.loads(text)]
    length = int(group.all_reduce(np.array(len(text)), op="max"))
    padded = np.frombuffer(text.ljust(length), np.uint8)
    rows = group.all_gather(padded).reshape(group.size, length)
    return [json.loads(row.tobytes()) for row in rows]


def _having(name: str, box: Any, nbytes: int, equal: bool) -> Having:
    return Having(name, Box(*map(tuple, box)), nbytes, equal)
