"""CIFAR-10 and CIFAR-100 in their binary version, from a folder or from the .tar.gz as it comes.

    a record:  label (1 byte; CIFAR-100: coarse, fine label)   3072 bytes, an image [3, 32, 32]

The Python version of the same files is pickle. Reading a pickle can run whatever code it holds, so
it is refused.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minipar.errors import UsageError

PIXELS = 3 * 32 * 32


class Kind(NamedTuple):
    train: tuple[str, ...]
    validation: str
    labels: int  # bytes of labels in a record; the last one counts
    classes: int


CIFAR10 = Kind(tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin", 1, 10)
CIFAR100 = Kind(("train.bin",), "test.bin", 2, 100)
PICKLES = frozenset(
    (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta", "meta")
)


def kind_of(names: set[str]) -> Kind | None:
    """Which CIFAR has files of these names; None: neither."""
    for kind in (CIFAR10, CIFAR100):
        if names & {*kind.train, kind.validation}:
            return kind
    return None


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]


def load_cifar(path: Path) -> Arrays:
    """Images uint8 [n, 32, 32, 3], labels int64 [n], those for validation, number of classes."""
    if path.is_dir():
        names = {p.name for p in path.iterdir()}
        return _load(path, names, lambda name: (path / name).read_bytes())
    try:
        with tarfile.open(path) as tar:  # nothing of it is written to the disk
            members = {Path(m.name).name: m for m in tar.getmembers() if m.isfile()}
            return _load(path, set(members), lambda name: _extracted(tar, members[name]))
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UsageError(f"{path} is no whole .tar.gz: {error}. Fetch it again.") from error


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, "only regular files are members"
    return file.read()


def _load(path: Path, names: set[str], read: Callable[[str], bytes]) -> Arrays:
    kind = kind_of(names)
    if kind is None:
        if names & PICKLES:
            raise UsageError(
                f"{path} is the Python version of CIFAR, which is pickle and could run any code; "
                "take the binary version (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz)."
            )
        raise UsageError(f"{path} holds no CIFAR: neither data_batch_1.bin nor train.bin is in it.")
    missing = [name for name in (*kind.train, kind.validation) if name not in names]
    if missing:
        raise UsageError(f"{path} has some of CIFAR-{kind.classes}, but no {', '.join(missing)}.")
    train = [_records(f"{path}: {name}", read(name), kind) for name in kind.train]
    images, labels = (np.concatenate(parts) for parts in zip(*train))
    val_x, val_y = _records(f"{path}: {kind.validation}", read(kind.validation), kind)
    return images, labels, val_x, val_y, kind.classes


def _records(where: str, data: bytes, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one file."""
    size = kind.labels + PIXELS
    if not data or len(data) % size:
        raise UsageError(
            f"{where} has {len(data)} bytes; CIFAR-{kind.classes} has records of {size} bytes, so "
            "this is no whole number of them. It was cut off or is another file; fetch it again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    labels = records[:, kind.labels - 1].astype(np.int64)
    if labels.max() >= kind.classes:
        raise UsageError(
            f"{where}: record {int(labels.argmax())} has the label {labels.max()}; CIFAR-"
            f"{kind.classes} has the labels 0 to {kind.classes - 1}. This is another file."
        )
    images = records[:, kind.labels :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels
