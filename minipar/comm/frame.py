"""What travels in front of every array: a fixed header that says whose call it belongs to.

The receiver compares it with its own call, so ranks that disagree find out at the first message
and not at the first wrong number. A header is a C struct of fixed size with bounded strings:
reading one allocates nothing, evaluates nothing and cannot run off its end.

    magic  group  sequence  payload bytes  place  dimensions  on a GPU?  shape[8]
    op  dtype  signature  site

The payload follows, unless `place` says where it lies in memory that the receiver can reach. An
array of a GPU becomes one at the receiver, however its bytes have travelled (`staging`).
"""

from __future__ import annotations

import math
import os
import struct
import sys
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minipar.array import on_host
from minipar.errors import CommError, UsageError

MAGIC = b"mp01"
MAX_DIMS = 8
BY_NCCL = 1 << 63  # as a place: the payload comes by NCCL
MAX_SIGNATURE = 96
SITE_BYTES = 104
NUMBERS = struct.Struct(f"<4sIQQQBB6x{MAX_DIMS}Q")
TEXTS = struct.Struct(f"<16s16s{MAX_SIGNATURE}s{SITE_BYTES}s")
HEADER_BYTES = NUMBERS.size + TEXTS.size
DTYPES = frozenset(np.dtype(code).name for code in "?bhiqBHIQefdFD") | {"bfloat16"}
OWN_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Call(NamedTuple):
    """One communication call of one rank: what it is, its number, and where the script made it."""

    group: int
    sequence: int
    op: str
    signature: str  # what all ranks must agree on, e.g. "sum float32[512] by ring"
    site: str  # file:line

    @property
    def lane(self) -> tuple[int, bool]:
        """Messages are matched within a lane: a group's collectives, or its sends and receives."""
        return self.group, self.op in ("send", "recv")

    def __str__(self) -> str:
        where = f" of group {self.group}" if self.group else ""
        what = f" ({self.signature})" if self.signature else ""
        return f"{self.op} #{self.sequence}{where}{what} at {self.site}"


class Header(NamedTuple):
    """A call, and the dtype and shape of the array that comes with it."""

    call: Call
    dtype: str
    shape: tuple[int, ...]
    place: int = 0  # 0: the payload follows; else 1 + where it begins in the sender's heap
    device: bool = False  # whether the array lies on a GPU

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * dtype_of(self.dtype).itemsize

    def __str__(self) -> str:
        where = " on cuda" if self.device else ""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]{where}"


@lru_cache(maxsize=64)
def dtype_of(name: str) -> np.dtype:
    """The NumPy dtype of that name; bfloat16 comes from ml_dtypes where that is installed."""
    if name not in DTYPES:
        raise CommError(
            f"no array of dtype {name!r} can be sent; known: {', '.join(sorted(DTYPES))}"
        )
    if name == "bfloat16":
        from ml_dtypes import bfloat16

        return np.dtype(bfloat16)
    return np.dtype(name)


@lru_cache(maxsize=64)
def name_of(dtype: np.dtype) -> str:
    """dtype.name, which NumPy puts together anew, and slowly, each time it is asked for."""
    return dtype.name


def header_for(call: Call, array: np.ndarray) -> Header:
    """The header that announces `array` as part of `call`."""
    name = name_of(array.dtype)
    if name not in DTYPES:
        raise UsageError(
            f"{call}: an array of dtype {array.dtype} cannot be sent; convert it first"
        )
    if array.ndim > MAX_DIMS:
        raise UsageError(f"{call}: arrays of more than {MAX_DIMS} dimensions cannot be sent")
    return Header(call, name, array.shape, device=not on_host(array))


def pack(header: Header) -> bytes:
    """header as HEADER_BYTES bytes; texts that are too long are cut."""
    call, shape = header.call, header.shape
    numbers = NUMBERS.pack(
        MAGIC,
        call.group,
        call.sequence,
        header.nbytes,
        header.place,
        len(shape),
        header.device,
        *shape,
        *(0,) * (MAX_DIMS - len(shape)),
    )
    return numbers + _packed(call.op, header.dtype, call.signature, call.site)


@lru_cache(maxsize=256)
def _packed(op: str, dtype: str, signature: str, site: str) -> bytes:
    """The texts, which are the same ones again and again."""
    return TEXTS.pack(
        op.encode()[:16],
        dtype.encode(),
        signature.encode()[:MAX_SIGNATURE],
        site.encode()[-SITE_BYTES:],
    )


def unpack(raw: bytes | bytearray | memoryview) -> Header:
    """The header in `raw`.  Raises: CommError for bytes that no minipar rank would have sent."""
    magic, group, sequence, nbytes, place, ndim, device, *shape = NUMBERS.unpack_from(raw)
    if magic != MAGIC or ndim > MAX_DIMS or any(shape[ndim:]) or device > 1:
        raise CommError("a message does not begin with a minipar header; it was dropped")
    op, dtype, signature, site = _unpacked(bytes(raw[NUMBERS.size : HEADER_BYTES]))
    if dtype not in DTYPES:
        raise CommError("a message does not begin with a minipar header; it was dropped")
    call = Call(group, sequence, op, signature, site)
    header = Header(call, dtype, tuple(shape[:ndim]), place, bool(device))
    if header.nbytes != nbytes:
        raise CommError(f"a header announces {nbytes} bytes for {header}; the message was dropped")
    return header


@lru_cache(maxsize=256)
def _unpacked(raw: bytes) -> list[str]:
    return [text.rstrip(b"\0").decode(errors="replace") for text in TEXTS.unpack(raw)]


def as_bytes(array: np.ndarray) -> memoryview:
    """The array's memory (or that of a copy in C order) as bytes."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def call_site(skip: int = 0) -> str:
    """file:line of the nearest caller outside minipar/comm.  skip: callers known to be inside."""
    frame = sys._getframe(1 + skip)
    while (outer := frame.f_back) is not None and frame.f_code.co_filename.startswith(OWN_FOLDER):
        frame = outer
    return _site(frame.f_code.co_filename, frame.f_lineno)


@lru_cache(maxsize=1024)
def _site(path: str, line: int) -> str:
    if "ipykernel_" in path:
        return f"notebook cell:{line}"
    try:
        inside = os.path.relpath(path) if os.path.isabs(path) else path
    except OSError:  # the current folder has been removed
        inside = path
    return f"{path if inside.startswith('..') else inside}:{line}"
