r"""Snapshots: what a server must have to go on where it was.

    server-0/step-000120/    values/KEY.npy   state/KEY/SLOT.npy   versions.npy   records.npy
                             manifest.json    clocks, numbers of pushes, steps

A snapshot is a checkpoint (`parallel.checkpoint`): a folder that gets its name once it is complete.
Pushes that come after it are lost if the server dies. The numbers in it say which these are.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array
from minipar.errors import CheckpointError
from minipar.parallel import checkpoint
from minipar.parallel.parameter_server.book import Book
from minipar.parallel.parameter_server.report import Report


class Snapshots(NamedTuple):
    """Where to, and after how many updates; also whenever a worker comes or goes."""

    folder: str | Path
    every: int


def save(folder: Path, book: Book) -> None:
    """Replace the last snapshot, atomically."""
    store, report = book.store, asdict(book.report)
    arrays: dict[str, Array] = {
        "versions": store.versions,
        "records": np.array(report.pop("numbers"), np.int64),
    }
    for key, x in zip(store.shard.keys, store.tensors):
        arrays[f"values/{key.name}"] = x.data
        for slot, state in store.optimizer.state[key.name].items():
            arrays[f"state/{key.name}/{slot}"] = state
    meta = {
        "checksum": store.shard.checksum,
        "updates": store.updates,
        "steps": store.optimizer.steps,
        "clocks": book.clocks,
        "numbers": book.numbers,
        "report": report,
    }
    checkpoint.save_step(folder, store.updates, arrays, meta)


def load(folder: Path, book: Book) -> bool:
    """Fill book and store from the last snapshot, if there is one.  Raises: CheckpointError."""
    path, store = checkpoint.latest(folder), book.store
    if path is None:
        return False
    arrays, meta = checkpoint.load(path)
    if meta["checksum"] != store.shard.checksum:
        raise CheckpointError(f"{path} has other keys than this server.")
    for key, x in zip(store.shard.keys, store.tensors):
        x.data[...] = arrays[f"values/{key.name}"]
        for slot, state in store.optimizer.state[key.name].items():
            state[...] = arrays[f"state/{key.name}/{slot}"]
    store.versions[...] = arrays["versions"]
    store.updates, store.optimizer.steps = meta["updates"], meta["steps"]
    book.clocks, book.numbers = _by_worker(meta["clocks"]), _by_worker(meta["numbers"])
    book.report = Report(**meta["report"])
    book.report.lost_pushes = _by_worker(book.report.lost_pushes)
    book.report.numbers.extend(arrays["records"].tolist())
    return True


def _by_worker(counts: dict[Any, int]) -> dict[int, int]:
    """JSON has turned the numbers of workers into text."""
    return {int(worker): n for worker, n in counts.items()}
