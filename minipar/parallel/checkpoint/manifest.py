r"""The manifest of a checkpoint: what there is, in which file, and with which hash.

    {"format": "minipar checkpoint 2",
     "sha256": of all the rest,
     "meta":   {"step": 500, ...},
     "arrays": {"model/up.weight": {"shape": [8, 12], "dtype": "float32", "shards": [
         {"file": "model/up.weight.0-0.npy", "start": [0, 0], "stop": [8, 6],
          "bytes": 320, "sha256": "...", "rank": 0}, ...]}}}

`start` and `stop` are a box of the whole array (boxes.py). A manifest comes from outside, so it is
believed in nothing: `read` refuses one whose boxes overlap or leave something out, that names files
elsewhere, or dtypes that are not plain numbers, before a byte is allocated for any array.

Left out on purpose: proof of who wrote it. Hashes show damage; who can write the folder can write
hashes that fit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from minipar.errors import CheckpointError
from minipar.parallel.boxes import Box, whole, why_no_cover

FORMAT = "minipar checkpoint 2"
BEFORE = "minipar checkpoint 1"  # had `slices` without bytes and rank, and no sha256 of itself
NAME = "manifest.json"
MOST_BYTES = 64 * 2**20  # of a manifest
MOST_AXES = 32
HEADER_BYTES = 10_000  # of a .npy file, at most (NumPy's own limit)
DTYPES = frozenset(
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
) | {"bool", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"}  # fmt: skip


class Shard(NamedTuple):
    """A file with a box of an array."""

    file: str  # inside the checkpoint, with "/"
    box: Box
    nbytes: int | None  # of the file; format 1 does not say
    sha256: str
    rank: int = 0  # who wrote it


class Entry(NamedTuple):
    """An array."""

    shape: tuple[int, ...]
    dtype: str
    shards: tuple[Shard, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * stored(self.dtype).itemsize


class Manifest(NamedTuple):
    """All of it."""

    arrays: dict[str, Entry]
    meta: dict[str, Any]


def dtype_of(name: str) -> np.dtype:
    """bfloat16 comes from ml_dtypes.  Raises: CheckpointError if that is not installed."""
    if name == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError:
            raise CheckpointError("arrays of bfloat16 need the package ml_dtypes.") from None
        return np.dtype(bfloat16)
    return np.dtype(name)


def stored(dtype: str) -> np.dtype:
    """How the numbers lie in the file: bfloat16, which .npy does not know, as its bits."""
    return np.dtype(np.uint16) if dtype == "bfloat16" else dtype_of(dtype)


def text_of(manifest: Manifest) -> str:
    """Raises: CheckpointError if it is not one that `read` would take."""
    arrays = {name: _as_json(entry) for name, entry in manifest.arrays.items()}
    body = {"meta": manifest.meta, "arrays": arrays}
    found = {"format": FORMAT, "sha256": signature(body), **body}
    parse(found, "the manifest to be written")
    return json.dumps(found, indent=1)


def signature(body: Mapping[str, Any]) -> str:
    """sha256 of meta and arrays, as JSON without spaces and with sorted keys."""
    plain = {"meta": body["meta"], "arrays": body["arrays"]}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read(folder: Path) -> Manifest:
    """Raises: CheckpointError, which says what is wrong."""
    path = folder / NAME
    try:
        if not path.is_file():  # a pipe or a device might never end
            raise ValueError(f"it has no file {NAME}")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"its {NAME} has more than {MOST_BYTES} bytes")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder} is not a checkpoint: {error}") from None
    return parse(found, str(path))


def parse(found: Any, where: str) -> Manifest:
    """The manifest in what JSON has given.  Raises: CheckpointError."""
    form = found.get("format") if isinstance(found, dict) else None
    if form not in (FORMAT, BEFORE):
        raise CheckpointError(f"{where} has format {form!r}; this minipar reads {FORMAT!r}.")
    try:
        if form == FORMAT and found["sha256"] != signature(found):
            raise CheckpointError(f"{where} is damaged: its sha256 differs from what it says.")
        _need(isinstance(found["meta"], dict), "meta is no object")
        arrays = {name: _entry(name, entry, form) for name, entry in found["arrays"].items()}
        files = [shard.file for entry in arrays.values() for shard in entry.shards]
        _need(len(files) == len(set(files)), "a file is named twice")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        said = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{where} says what cannot be: {said}.") from None
    return Manifest(arrays, found["meta"])


def _need(good: bool, otherwise: str) -> None:
    if not good:
        raise ValueError(otherwise)


def _entry(name: str, entry: Any, form: str) -> Entry:
    dtype = entry["dtype"]
    _need(0 < len(name) <= 1000, "an array has no name, or a very long one")
    _need(isinstance(dtype, str) and dtype in DTYPES, f"{name} has the dtype {dtype!r}")
    shape = _numbers(entry["shape"])
    _need(len(shape) <= MOST_AXES, f"{name} has {len(shape)} axes")
    _need(math.prod(max(n, 1) for n in shape) < 2**60, f"{name} has the shape {list(shape)}")
    size = stored(dtype).itemsize
    listed = entry["shards" if form == FORMAT else "slices"]
    shards = tuple(_shard(name, shard, size, form) for shard in listed)
    why = why_no_cover(shape, [shard.box for shard in shards])
    _need(why is None, f"of {name}, {why}")
    return Entry(shape, dtype, shards)


def _shard(name: str, shard: Any, itemsize: int, form: str) -> Shard:
    file, digest = shard["file"], shard["sha256"]
    box = Box(_numbers(shard["start"]), _numbers(shard["stop"]))
    path = PurePosixPath(file)
    outside = path.is_absolute() or ".." in path.parts or "\\" in file or "\0" in file
    _need(not outside, f"{name} lies outside the checkpoint, at {file}")
    _need(path.suffix == ".npy" and len(file) < 1000, f"{name} is in {file!r}, which is no .npy")
    _need(isinstance(digest, str) and len(digest) == 64, f"the sha256 of {file} is {digest!r}")
    if form == BEFORE:
        return Shard(file, box, None, digest)
    nbytes, rank = _numbers([shard["bytes"], shard["rank"]])
    header = nbytes - box.size * itemsize
    _need(0 < header <= HEADER_BYTES and header % 64 == 0, f"{file} cannot have {nbytes} bytes")
    return Shard(file, box, nbytes, digest, rank)


def _numbers(found: Any) -> tuple[int, ...]:
    """A list of integers that are not negative."""
    plain = isinstance(found, list) and all(type(n) is int and 0 <= n < 2**62 for n in found)
    _need(plain, f"{str(found)[:80]} should be a list of numbers")
    return tuple(found)


def _as_json(entry: Entry) -> dict[str, Any]:
    shards = [
        {
            "file": s.file,
            "start": list(s.box.start),
            "stop": list(s.box.stop),
            "bytes": s.nbytes,
            "sha256": s.sha256,
            "rank": s.rank,
        }
        for s in entry.shards
    ]
    return {"shape": list(entry.shape), "dtype": entry.dtype, "shards": shards}


def file_name(name: str, shape: tuple[int, ...], box: Box) -> str:
    """model/up.weight.npy; of a part model/up.weight.0-6.npy, where 0, 6 is its start."""
    kind, slash, rest = name.partition("/")
    plain = f"{_quoted(kind)}{slash}{','.join(map(_quoted, rest.split('/')))}"
    if box != whole(shape):
        plain += "." + "-".join(map(str, box.start))
    return plain + ".npy"


def _quoted(text: str) -> str:
    """Only what any file system takes; the rest as %XX."""
    plain = (
        c if c.isascii() and (c.isalnum() or c in "-_=+@.") else f"%{ord(c):02X}" for c in text
    )
    return "".join(plain).replace("..", ".%2E")
