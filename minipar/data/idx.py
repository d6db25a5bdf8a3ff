"""IDX, the format of MNIST and of those made in its likeness: a header, then the bytes.

0 0 8 d   size of each of the d dimensions (4 bytes, the highest first)   the numbers, a byte each
    8 says that they are bytes;  d = 3 for images [n, h, w], 1 for labels [n]
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from minipar.errors import UsageError

PARTS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
MOST = 2**33  # bytes; a header that asks for more is not believed


def idx_files(folder: Path) -> list[Path | None]:
    """The files of PARTS in a folder, as they are or as .gz; None for one that is not there."""
    dimensions = {"images": 3, "labels": 1}
    found = []
    for part in PARTS:
        end = f"idx{dimensions[part.partition('-')[2]]}-ubyte"
        names = [f"{part}{mark}{end}{gz}" for mark in "-." for gz in ("", ".gz")]
        found.append(next((folder / name for name in names if (folder / name).is_file()), None))
    return found


def load_idx(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Images uint8 [n, h, w, 1] and labels int64 [n], those for validation, number of classes."""
    arrays = []
    for part, path in zip(PARTS, idx_files(folder)):
        if path is None:
            raise UsageError(
                f"{folder} has no {part}-idx...-ubyte (or .gz), only others of its set."
            )
        arrays.append(read_idx(path, 3 if "images" in part else 1))
    train_x, train_y, val_x, val_y = arrays
    for name, images, labels in (("train", train_x, train_y), ("t10k", val_x, val_y)):
        if len(images) != len(labels):
            raise UsageError(
                f"{folder}: {name}-images has {len(images)} images, {name}-labels has "
                f"{len(labels)} labels; they are not of the same set."
            )
    if train_x.shape[1:] != val_x.shape[1:]:
        raise UsageError(
            f"{folder}: the images are {list(train_x.shape[1:])} in train-images and "
            f"{list(val_x.shape[1:])} in t10k-images; they are not of the same set."
        )
    train_y, val_y = train_y.astype(np.int64), val_y.astype(np.int64)
    classes = int(max(train_y.max(), val_y.max())) + 1
    return train_x[..., None], train_y, val_x[..., None], val_y, classes


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of an IDX file of bytes, uint8, with so many dimensions, none of them empty."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            head = file.read(4 * (1 + dimensions))
            shape = _shape(path, head, dimensions)
            n = math.prod(shape)
            data = file.read(n + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is damaged: {error}. Fetch it again.") from error
    if len(data) != n:
        seen = "more" if len(data) > n else f"only {len(data)}"
        raise UsageError(
            f"{path}: its header says {list(shape)}, which is {n} bytes; {seen} follow it. "
            "It was cut off or altered; fetch it again."
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _shape(path: Path, head: bytes, dimensions: int) -> tuple[int, ...]:
    expected = bytes([0, 0, 8, dimensions])
    if len(head) < 4 * (1 + dimensions) or head[:4] != expected:
        seen = f"begins with {head[:4].hex(' ')}" if head else "is empty"
        if head[:4] == expected:
            seen = f"ends after {len(head)} bytes"
        raise UsageError(
            f"{path} {seen}; an IDX file of bytes in {dimensions} dimensions begins with "
            f"{expected.hex(' ')} and has {4 * dimensions} bytes of sizes."
        )
    shape = tuple(int(size) for size in np.frombuffer(head, ">u4")[1:])
    if not 0 < math.prod(shape) <= MOST:
        raise UsageError(f"{path}: its header says {list(shape)}; no data set is of that size.")
    return shape
