r"""Which key lies on which server: spread by size, the largest first, alike on every process.

    parameters   deep.weight 900 rows          up.weight     up.bias   down.weight
                 ┌──────────┬──────────┐       ┌────────┐    ┌─┐       ┌───┐
    keys         │ [0:450]  │ [450:900]│       │        │    │ │       │   │
                 └──────────┴──────────┘       └────────┘    └─┘       └───┘
    server            0          1                 0          1          1

A parameter larger than slice_bytes is cut by rows into one slice for each server (so does MXNet's
KVStore with "big arrays"). Then each key goes to the server that has least so far. Nothing here is
drawn or hashed: Python's hash() of a name differs between processes.

A table (the weight of an Embedding with sparse=True) is pulled and pushed by rows. All other
keys are dense, and travel in *bundles*: a large one alone, small ones together in one vector.

Letters: n rows of a parameter, d numbers in a row.
Paper: Li et al. 2014, section 4.4, spreads ranges of keys over servers by a hash ring, so that
servers can come and go; left out here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from minipar.array import Array
from minipar.comm.wiring import even_cuts
from minipar.nn import Embedding, Module

SLICE_BYTES = 1 << 20
LONE_BYTES = 64 << 10  # from here on a key has a message of its own


class Key(NamedTuple):
    """Rows start .. stop of a parameter."""

    parameter: str
    start: int
    stop: int
    shape: tuple[int, ...]
    dtype: Any
    table: bool
    whole: bool  # whether these are all rows

    @property
    def name(self) -> str:
        return self.parameter if self.whole else f"{self.parameter}[{self.start}:{self.stop}]"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def of(self, array: Array) -> Array:
        """The rows of this key in an array of the parameter: a view."""
        return array if self.whole else array[self.start : self.stop]


class Shard:
    """The keys of one server, in the order that its messages have; the same on both sides."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = list(keys)
        self.tables = [i for i, key in enumerate(keys) if key.table]
        self.dense = [i for i, key in enumerate(keys) if not key.table]
        self.bundles = list(_bundles(keys))

    @property
    def nbytes(self) -> int:
        return sum(key.nbytes for key in self.keys)

    @property
    def checksum(self) -> int:
        """A number that differs if any key has another name, shape, dtype or kind."""
        return crc32(repr([(k.name, k.shape, str(k.dtype), k.table) for k in self.keys]).encode())


def table_names(model: Module) -> set[str]:
    """The parameters that are pulled and pushed by rows."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, Embedding) and m.sparse}
    return {name for name, x in model.named_parameters() if id(x) in tables}


def shards_of(model: Module, servers: int, slice_bytes: int = SLICE_BYTES) -> list[Shard]:
    """What each server has of the parameters that are trained: a pure function of their shapes."""
    keys = list(_keys(model, servers, slice_bytes))
    order = sorted(range(len(keys)), key=lambda i: (-keys[i].nbytes, i))
    loads, owner = [0] * servers, [0] * len(keys)
    for i in order:
        owner[i] = loads.index(min(loads))
        loads[owner[i]] += keys[i].nbytes
    return [Shard([k for k, o in zip(keys, owner) if o == s]) for s in range(servers)]


def _keys(model: Module, servers: int, slice_bytes: int) -> Iterator[Key]:
    tables = table_names(model)
    for name, x in model.named_parameters():
        if not x.requires_grad:
            continue
        n = x.shape[0] if x.ndim else 1
        large = math.prod(x.shape) * x.dtype.itemsize > slice_bytes
        cuts = even_cuts(n, min(n, servers)) if large else [0, n]
        for start, stop in pairwise(cuts):
            whole = (start, stop) == (0, n)
            shape = tuple(x.shape) if whole else (stop - start, *x.shape[1:])
            yield Key(name, start, stop, shape, np.dtype(x.dtype), name in tables, whole)


def _bundles(keys: Sequence[Key]) -> Iterator[list[int]]:
    """Which dense keys share a message: the small ones of each dtype."""
    together: dict[Any, list[int]] = {}
    for i, key in enumerate(keys):
        if not key.table and key.nbytes < LONE_BYTES:
            together.setdefault(key.dtype, []).append(i)
        elif not key.table:
            yield [i]
    yield from together.values()
