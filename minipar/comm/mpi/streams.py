"""Messages as MPI carries them: a header, with the payload in it or behind it.

    up to INLINE_BYTES      one MPI message:  [header | payload]                        tag HEAD
    larger                  [header]                                                    tag HEAD
                            [piece] [piece] ...   of at most PIECE_BYTES each           tag PAYLOAD

MPI keeps the order of messages of one pair and tag. So the receiver takes headers as they come, and
asks for a payload only when it knows from the header where it belongs: straight into the array that
a receive has named, if one has. Everything travels as bytes, since MPI knows no bfloat16.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from minipar.comm.frame import HEADER_BYTES, Header, as_bytes, dtype_of, pack, unpack
from minipar.comm.mailbox import Mailbox
from minipar.comm.staging import Staging
from minipar.comm.transport import Message

HEAD, PAYLOAD = 1, 2  # tags
INLINE_BYTES = 3500  # with its header below the 4 KB up to which MPI libraries buffer themselves
PIECE_BYTES = 1 << 30  # MPI counts in 32 bits
Comm = Any  # an mpi4py.MPI.Comm


class Sending:
    """A message on its way to one rank."""

    def __init__(self, comm: Comm, dst: int, header: Header, array: np.ndarray) -> None:
        """array: must stay as it is until `over`, unless it is small enough to travel inline."""
        self.dst = dst
        head, payload = pack(header), as_bytes(array)
        if payload.nbytes <= INLINE_BYTES:
            self._requests = [comm.Isend(head + payload, dst, HEAD)]
        else:
            self._requests = [comm.Isend(head, dst, HEAD)]
            self._requests += [comm.Isend(piece, dst, PAYLOAD) for piece in _pieces(payload)]
        self.over = False  # whether MPI needs the array no longer, as of the last `look`

    def look(self) -> bool:
        """Ask MPI; by one thread at a time."""
        self.over = _complete(self._requests)
        return self.over


class Arriving:
    """What comes from one rank: the message under way, and headers of those after it."""

    def __init__(
        self, comm: Comm, src: int, mailbox: Mailbox, staging: Staging | None = None
    ) -> None:
        """staging: for arrays of a GPU."""
        self._comm, self._src, self._mailbox = comm, src, mailbox
        self._staging = staging or Staging()
        self._heads: deque[bytearray] = deque()
        self._message: Message | None = None
        self._requests: list[Any] = []

    @property
    def under_way(self) -> bool:
        return self._message is not None

    def hear(self, head: bytearray) -> None:
        """Take in a message of tag HEAD."""
        self._heads.append(head)
        self.pull()

    def pull(self) -> bool:
        """Deliver what is complete, in order; whether anything was."""
        moved = False
        while self._message is not None or self._heads:
            if self._message is None:
                self._message = self._begin(self._heads.popleft())
            if not _complete(self._requests):
                break
            message, self._message = self._message, None
            if message.header.device:
                message.array = self._staging.up(message.array)
            self._mailbox.deliver(message)
            moved = True
        return moved

    def _begin(self, head: bytearray) -> Message:
        header = unpack(head[:HEADER_BYTES])
        receive = self._mailbox.expected(self._src, header.call)
        array = None if receive is None else receive.place_for(header)
        if array is None:
            empty = self._staging.room if header.device else np.empty
            array = empty(header.shape, dtype_of(header.dtype))
        place = as_bytes(array)
        if place.nbytes <= INLINE_BYTES:
            place[:] = head[HEADER_BYTES:]
        else:
            self._requests = [
                self._comm.Irecv(piece, self._src, PAYLOAD) for piece in _pieces(place)
            ]
        return Message(self._src, header, array)


def _pieces(payload: memoryview) -> list[memoryview]:
    return [payload[i : i + PIECE_BYTES] for i in range(0, payload.nbytes, PIECE_BYTES)]


def _complete(requests: list[Any]) -> bool:
    """Whether all are; those that are leave the list."""
    while requests and requests[-1].Test():
        requests.pop()
    return not requests
