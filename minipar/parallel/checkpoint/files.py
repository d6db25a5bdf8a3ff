"""Files that last, and files that are what they should be.

write     a .npy file, hashed in the same pass, and on the disk when it returns
mapped    a .npy file as an array that lies in it, after its hash was compared

Writing and hashing go together through blocks that fit the cache, so that the numbers come from
memory once. Reading maps: what is not needed of a file is looked at once, for the hash, and takes
no memory that the system could not take back.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from minipar.errors import CheckpointError
from minipar.parallel.checkpoint.manifest import HEADER_BYTES, Shard, dtype_of, stored

BLOCK_BYTES = 1 << 17  # such a block is still in the cache when it is hashed and then written


def write(path: Path, array: np.ndarray) -> tuple[int, str]:
    """The bytes and the sha256 of the new file.  Raises: OSError."""
    if array.dtype.name == "bfloat16":
        array = array.view(np.uint16)
    header = io.BytesIO()
    said = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(header, said)
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    digest = hashlib.sha256(header.getvalue())
    with open(path, "wb") as file:
        file.write(header.getvalue())
        for start in range(0, len(raw), BLOCK_BYTES):
            block = raw[start : start + BLOCK_BYTES]
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return file.tell(), digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Whoever sees the file sees all of it."""
    new = path.with_name(path.name + ".new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def sync_folder(path: Path) -> None:
    """Names in it last, too."""
    if os.name == "nt":  # there a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mapped(folder: Path, shard: Shard, dtype: str, *, verify: bool) -> np.ndarray:
    """The box of a shard, read-only.  Raises: CheckpointError, with the name of the file.

    verify: compare its hash; else only its size and header.
    """
    path = folder / shard.file
    try:
        raw = _map(path, folder, shard.nbytes)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if verify and (found := hashlib.sha256(raw).hexdigest()) != shard.sha256:
        raise CheckpointError(
            f"{path} is damaged, or of another checkpoint: its sha256 is {found[:12]}..., not "
            f"{shard.sha256[:12]}... as in the manifest."
        )
    try:
        return _array(raw, shard, dtype)
    except ValueError as error:
        raise CheckpointError(f"{path} is not what the manifest says: {error}") from None


def _map(path: Path, folder: Path, nbytes: int | None) -> Any:
    """Raises: OSError, ValueError."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"it lies outside the checkpoint, at {path.resolve()}")
    with open(path, "rb", opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a file")
        if nbytes is not None and found.st_size != nbytes:
            raise ValueError(f"it has {found.st_size} bytes, not {nbytes}")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe has nobody at its end


def _array(raw: Any, shard: Shard, dtype: str) -> np.ndarray:
    """Raises: ValueError."""
    head, wanted = io.BytesIO(raw[: HEADER_BYTES + 128]), stored(dtype)
    version = np.lib.format.read_magic(head)
    if version != (1, 0):
        raise ValueError(f"version {version} of .npy is never written here")
    shape, fortran, found = np.lib.format.read_array_header_1_0(head)
    if (shape, found, fortran) != (shard.box.shape, wanted, False):
        raise ValueError(f"it holds {found}{list(shape)}, not {wanted}{list(shard.box.shape)}")
    if len(raw) - head.tell() != shard.box.size * wanted.itemsize:
        raise ValueError(f"its header is for another length than {len(raw)} bytes")
    array = np.frombuffer(raw, wanted, shard.box.size, head.tell()).reshape(shape)
    return array.view(dtype_of(dtype))
