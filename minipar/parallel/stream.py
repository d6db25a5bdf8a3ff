"""One rank reads a stream; a scatter gives each rank its rows of every batch.

A batch travels as one scatter of its form, such as [[0, 0], 0] for ((dense, ids), y), and one
scatter of each of its arrays. The form of the end is null.

    cost of a batch with a arrays:  (a+1)·ceil(log2 p)·α + (p-1)/p · n·β
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np

from minipar.comm.group import Group
from minipar.data.stream import Batch, Stream, dealt


def read_by_one(stream: Stream | None, group: Group, root: int = 0) -> Iterator[Batch]:
    """This rank's rows of each batch.  stream: on the root; the others pass None.

    All ranks take the same number of batches. An error of the source is raised on the root.
    Raises: what the calls of a group raise.
    """
    return dealt(stream, group.size, lambda parts: scatter_batch(parts, group, root))


def scatter_batch(parts: list[Batch] | None, group: Group, root: int = 0) -> Batch:
    """parts[r] on rank r.  parts: on the root, alike but for their numbers; None elsewhere."""
    form = None
    if parts is not None:
        text = json.dumps(_form(parts[0])).encode()
        form = np.tile(np.frombuffer(text, np.uint8), (group.size, 1))
    mine = json.loads(group.scatter(form, root).tobytes())
    leaves = None if parts is None else [_leaves(part) for part in parts]
    received = (
        group.scatter(None if leaves is None else np.stack([part[n] for part in leaves]), root)
        for n in count()
    )
    return _built(mine, received)


def _form(batch: Batch) -> Any:
    if batch is None:
        return None
    return [_form(part) for part in batch] if isinstance(batch, tuple) else 0


def _leaves(batch: Batch) -> list[np.ndarray]:
    if batch is None:
        return []
    return (
        [leaf for part in batch for leaf in _leaves(part)] if isinstance(batch, tuple) else [batch]
    )


def _built(form: Any, received: Iterator[np.ndarray]) -> Batch:
    if form is None:
        return None
    return tuple(_built(part, received) for part in form) if form != 0 else next(received)
