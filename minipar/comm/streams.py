"""Messages in a stream of bytes: a header, then the payload, one message after the other.

Neither side waits: each moves what fits now, and remembers where it was.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np

from minipar.array import on_host
from minipar.comm.byte_ring import ByteRing
from minipar.comm.frame import (
    BY_NCCL,
    HEADER_BYTES,
    Call,
    Header,
    as_bytes,
    dtype_of,
    pack,
    unpack,
)
from minipar.comm.mailbox import Mailbox
from minipar.comm.reach import Vanished
from minipar.comm.staging import Staging
from minipar.comm.transport import BUFFERED_BYTES, Message, never_taken
from minipar.errors import CallMismatch, CommError

REST_S = 1.0  # without a byte, after which no more comes of a lost rank of another host
ByNccl = Callable[[int, Header, np.dtype], Message]
Fetch = Callable[[int, Header, np.ndarray], bool]  # (src, of a large message, to be filled): done?


class Writer(Protocol):
    """The near end of a stream of bytes to one rank."""

    def write_some(self, source: memoryview) -> int:
        """Move a first part of `source`; how many bytes (0: there is no room now)."""

    def clear(self) -> None:
        """The rank at the other end is lost."""


class Reader(Protocol):
    """The near end of a stream of bytes from one rank."""

    def read_some(self, target: memoryview) -> int:
        """Fill a first part of `target` with what has come; how many bytes (0: nothing now)."""

    def readable(self) -> bool:
        """Whether something may have come."""

    def clear(self) -> None:
        """The rank at the other end is lost."""


class Closed:
    """The stream to and from a rank that is lost, until it returns."""

    def write_some(self, source: memoryview) -> int:
        return 0

    def read_some(self, target: memoryview) -> int:
        return 0

    def readable(self) -> bool:
        return False

    def clear(self) -> None:
        pass


class Outgoing:
    """A message on its way out: what of it is not yet under way."""

    def __init__(self, header: Header, array: np.ndarray) -> None:
        self.parts = [memoryview(pack(header))]
        if not header.place:
            self.parts.append(as_bytes(array))
        self.done = False

    def push(self, stream: Writer) -> bool:
        """Write what fits; whether anything did."""
        moved = False
        while self.parts:
            n = stream.write_some(self.parts[0])
            if not n and self.parts[0]:
                return moved
            moved = True
            self.parts[0] = self.parts[0][n:]
            if not self.parts[0]:
                del self.parts[0]
        self.done = True
        return True

    def keep(self) -> None:
        """Copy what is left, so that the sender's array is free."""
        self.parts = [memoryview(bytes(part)) for part in self.parts]
        self.done = True


class Incoming:
    """The stream from one rank: the message that is being read from it."""

    def __init__(
        self,
        src: int,
        stream: Reader,
        mailbox: Mailbox,
        fetch: Fetch,
        staging: Staging | None = None,
        by_nccl: ByNccl | None = None,
    ) -> None:
        """fetch: what copies a large payload from where it lies, if it does not follow.

        staging: for arrays of a GPU.  by_nccl: makes the message if its payload comes by NCCL.
        """
        self._by_nccl = by_nccl
        self._src, self._mailbox, self._fetch = src, mailbox, fetch
        self._staging = staging or Staging()
        self._raw = bytearray(HEADER_BYTES)
        self.open(stream, 0)

    def open(self, stream: Reader, incarnation: int) -> None:
        """From now on read what that incarnation of the rank sends."""
        self._stream, self._incarnation = stream, incarnation
        self.readable = stream.readable
        self._begin()

    def cut(self) -> None:
        """The rank is lost: take in what it has sent completely, and forget the rest.

        Of another host, more may be on its way, until its stream ends.
        """
        until = time.monotonic() + REST_S
        with contextlib.suppress(CommError):  # what is no message is not complete, either
            while self.readable() and time.monotonic() < until:
                if self.pull():
                    until = time.monotonic() + REST_S
                else:
                    time.sleep(0.001)
        self.open(Closed(), self._incarnation)

    def _begin(self) -> None:
        self._error: CommError | None = None
        self._message: Message | None = None
        self._left = memoryview(self._raw)

    def pull(self) -> bool:
        """Read what has come, until there is no more; whether anything had.

        Raises: CommError, now and ever after, if that cannot be a message.
        """
        if self._error is not None:
            raise self._error
        moved = False
        while n := self._stream.read_some(self._left):
            moved = True
            self._left = self._left[n:]
            if not self._left and self._message is None:
                self._expect_payload(self._header())
            if not self._left and self._message is not None:
                message = self._message
                self._begin()
                if message.header.device and on_host(message.array):
                    message.array = self._staging.up(message.array)
                self._mailbox.deliver(message)
        return moved

    def _header(self) -> Header:
        try:
            return unpack(self._raw)
        except CommError as error:
            self._error = CommError(f"rank {self._src} sent what is no message: {error}")
            raise self._error from None

    def _expect_payload(self, header: Header) -> None:
        if header.place == BY_NCCL:
            if self._by_nccl is None:
                raise CommError(f"rank {self._src} sends by NCCL, which this rank has not got")
            self._message = self._by_nccl(self._src, header, dtype_of(header.dtype))
            self._left = memoryview(b"")
            return
        receive = self._mailbox.expected(self._src, header.call, self._incarnation)
        array = None if receive is None else receive.place_for(header)
        if array is None:
            try:
                array = _room_for(header, self._staging.room if header.device else np.empty)
            except (MemoryError, ValueError) as error:  # ValueError: NumPy has no such shape
                self._error = CommError(
                    f"rank {self._src} announces {header}, {header.nbytes} bytes, in "
                    f"{header.call}, for which there is no room: {error}"
                )
                raise self._error from None
        self._message = Message(self._src, header, array)
        if self._incarnation:
            self._message.incarnation = self._incarnation
        large = header.place or header.nbytes > BUFFERED_BYTES
        try:
            filled = large and self._fetched(header, array)
        except Vanished:  # of this message, and what follows, nothing will be complete
            self.open(Closed(), self._incarnation)
            return
        self._left = memoryview(b"") if filled else as_bytes(array)

    def _fetched(self, header: Header, array: np.ndarray) -> bool:
        try:
            return self._fetch(self._src, header, array)
        except CommError as error:
            self._error = error
            raise


def _room_for(header: Header, empty: Callable[..., np.ndarray]) -> np.ndarray:
    """An array for that payload. What is announced need not come; so nothing is written here, and
    the system gives memory page by page as the payload does come.
    """
    most = memory_bytes()
    if header.nbytes > most:
        raise MemoryError(f"this machine has {most} bytes of memory")
    return empty(header.shape, dtype_of(header.dtype))


@cache
def memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def left_in(ring: ByteRing, src: int, dst: int, did: Callable[[Call], str]) -> CallMismatch | None:
    """The error if the ring from src to dst, both of which have returned, begins with a message of
    a collective.  did: what dst did instead of a call.
    """
    raw = bytearray(HEADER_BYTES)
    if ring.read_some(memoryview(raw)) < HEADER_BYTES:
        return None
    header = unpack(raw)
    return None if header.call.lane[1] else never_taken(dst, src, header.call, did(header.call))
