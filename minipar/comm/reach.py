"""The arrays of other ranks of this host, read and written where they lie.

    stage:   array of rank a  --a copies-->  shared memory  --b copies-->  array of rank b
    window:  array of rank a  ------------------ b copies ------------->  array of rank b

A `wiring.Window` is the array of another rank. It lies in memory that both have mapped (`heap`), or
in the private memory of the other process: then the kernel copies, asked by one of the two, and the
other one need not do anything. Linux allows that to processes of one user (process_vm_readv), but
a container or the Yama module may forbid it, so it is tried first (`Doorplate`, `can_read`).

While others may use a window, its owner keeps the array, even if its own call has failed: what they
still write must not meet something else.

Source: so do MPI libraries ("cross memory attach", Linux 3.2).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

PR_SET_PTRACER = 0x59616D61  # <linux/prctl.h>
PIECE_BYTES = 4 << 20  # copied at once: the kernel pins so many pages at a time


class Vanished(Exception):
    """The process whose memory was to be used has ended, and that is not this rank's end."""


class Mapped:
    """A window onto memory that this process has mapped, too."""

    def __init__(self, array: np.ndarray, moved: Callable[[], None]) -> None:
        """moved: called after every piece of a large copy."""
        self._array, self._moved = array, moved

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._array[start:stop]

    def fetch(self, start: int, into: np.ndarray) -> None:
        self._copy(into, self._array[start : start + len(into)])

    def write(self, start: int, part: np.ndarray) -> None:
        self._copy(self._array[start : start + len(part)], part)

    def _copy(self, into: np.ndarray, array: np.ndarray) -> None:
        step = PIECE_BYTES // array.itemsize
        for start in range(0, len(array), step):
            into[start : start + step] = array[start : start + step]
            self._moved()


class Private:
    """A window onto the private memory of another process."""

    def __init__(
        self,
        pid: int,
        address: int,
        dtype: np.dtype,
        moved: Callable[[], None],
        lost: Callable[[OSError], None],
    ) -> None:
        """lost: called if the kernel refuses; raises what there is to say."""
        self._pid, self._address, self._dtype = pid, address, dtype
        self._moved, self._lost = moved, lost
        self._buffer = np.empty(0, dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        if len(self._buffer) < stop - start:
            self._buffer = np.empty(stop - start, self._dtype)
        into = self._buffer[: stop - start]
        self.fetch(start, into)
        return into

    def fetch(self, start: int, into: np.ndarray) -> None:
        self._copy(0, start, into)

    def write(self, start: int, part: np.ndarray) -> None:
        self._copy(1, start, part)

    def _copy(self, way: int, start: int, ours: np.ndarray) -> None:
        mine, theirs = address_of(ours), self._address + start * self._dtype.itemsize
        for done in range(0, ours.nbytes, PIECE_BYTES):
            n = min(PIECE_BYTES, ours.nbytes - done)
            try:
                _copy(way, self._pid, mine + done, theirs + done, n)
            except OSError as error:
                self._lost(error)
            self._moved()


# -- what the kernel is asked -----------------------------------------------------------------


class _Span(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


@cache
def _calls() -> tuple[Any, Any] | None:
    """process_vm_readv and process_vm_writev; None where there are none."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        calls = libc.process_vm_readv, libc.process_vm_writev
    except AttributeError:
        return None
    for call in calls:
        span, number = ctypes.POINTER(_Span), ctypes.c_ulong
        call.argtypes = (ctypes.c_int, span, number, span, number, number)
        call.restype = ctypes.c_ssize_t
    return calls


def _copy(way: int, pid: int, ours: int, theirs: int, nbytes: int) -> None:
    """way: 0 from there, 1 to there; the rest as bytes and addresses.  Raises: OSError."""
    calls = _calls()
    assert calls is not None
    while nbytes > 0:
        here, there = _Span(ours, nbytes), _Span(theirs, nbytes)
        n = calls[way](pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
        if n <= 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        ours, theirs, nbytes = ours + n, theirs + n, nbytes - n


def address_of(array: np.ndarray) -> int:
    """Where its first element lies in this process."""
    return array.__array_interface__["data"][0]


def let_siblings_in(launcher: int) -> None:
    """Where the Yama module lets only ancestors in: the launcher, and so the ranks that it has
    started, may use the memory of this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(launcher), 0, 0, 0)


class Doorplate:
    """A number in the memory of this process that nobody can guess: whoever reads it is let in."""

    def __init__(self) -> None:
        self._number = np.frombuffer(os.urandom(8), np.uint64).copy()
        self.words = os.getpid(), address_of(self._number), int(self._number[0])


def can_read(words: tuple[int, int, int]) -> bool:
    """Whether this process can read the memory of the one whose Doorplate says that.

    What else can go wrong: in another namespace its number is that of a stranger.
    """
    pid, address, number = words
    found = np.zeros(1, np.uint64)
    try:
        if _calls() is None or pid == 0:
            return False
        _copy(0, pid, address_of(found), address, found.nbytes)
    except OSError:
        return False
    return int(found[0]) == number


def is_ordinary(array: np.ndarray) -> bool:
    """Whether the kernel can copy that array for others: not if it is memory of a device."""
    if _calls() is None:
        return False
    ends = np.empty(1, np.uint8)
    here, first = address_of(ends), address_of(array)
    try:
        _copy(0, os.getpid(), here, first, 1)
        _copy(0, os.getpid(), here, first + array.nbytes - 1, 1)
    except OSError:
        return False
    return True
