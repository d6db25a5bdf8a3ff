"""Between one rank's process and all others: what goes out waits in queues, what comes in is read.

Every ordered pair of ranks has a stream of its own, and a message is a header and then its payload
in that stream, cut into pieces of whatever size fits. `move` moves bytes both ways without
blocking, and every wait is a loop around it. That is why two ranks that send to each other at once
do not block each other: each takes in while it waits to get rid.

    sender:    queue -> [header|payload|header|...] -> ring          (move: push)
    receiver:  ring -> header -> payload -> mailbox                  (move: pull)

A large array in memory that the other one can reach is lent instead (`loans`): only its header goes
through the stream, and says where it lies.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from minipar.comm.exchange import Exchange
from minipar.comm.frame import Header
from minipar.comm.loans import Loans
from minipar.comm.mailbox import Mailbox
from minipar.comm.staging import Staging
from minipar.comm.streams import ByNccl, Closed, Incoming, Outgoing, Reader, Writer
from minipar.comm.transport import BUFFERED_BYTES, Message
from minipar.errors import CommError

KEPT_MESSAGES = 64  # small sends per receiver that are copied because the ring is full


class Channels:
    """Of one rank, to and from every other one."""

    def __init__(
        self, rank: int, streams: Mapping[int, tuple[Writer, Reader]], mailbox: Mailbox
    ) -> None:
        self._rank, self._streams = rank, dict(streams)
        self._writers = {r: writer for r, (writer, _) in streams.items()}
        self.queues: dict[int, deque[Outgoing]] = {r: deque() for r in streams}
        self.staging = Staging(self._in_memory_of_all)
        self.take_by_nccl: ByNccl | None = None
        self._incoming = {
            r: Incoming(r, reader, mailbox, self._fetch, self.staging, self._by_nccl)
            for r, (_, reader) in streams.items()
        }
        self.lock = threading.Lock()  # a rank may have a second thread (`asynchronous`)
        self.loans: Loans | None = None
        self.near: list[Incoming] = []  # the streams from ranks of this host

    def share(self, exchange: Exchange) -> None:
        """From now on arrays can be lent to the ranks of this host."""
        self.loans = Loans(exchange)
        self.near = [s for rank, s in self._incoming.items() if rank in exchange.here]

    def send(self, header: Header, array: np.ndarray, dst: int) -> Callable[[], bool]:
        """Begin to send, by whoever holds the lock; what tells whether the array is free again.

        The lock is around `lend`, too: what is lent is numbered as it is queued.
        """
        loan = None
        if self.loans is not None and array.nbytes > BUFFERED_BYTES:
            loan = self.loans.lend(array, dst, header.call)
        if loan is not None:
            header = header._replace(place=loan.where)
        outgoing = Outgoing(header, array)
        queue = self.queues[dst]
        queue.append(outgoing)
        self._push(dst)
        if not outgoing.done and array.nbytes <= BUFFERED_BYTES and len(queue) <= KEPT_MESSAGES:
            outgoing.keep()
        return loan.help if loan else lambda: outgoing.done

    def _by_nccl(self, src: int, header: Header, dtype: np.dtype) -> Message:
        if self.take_by_nccl is None:
            raise CommError(f"rank {src} sends by NCCL, which rank {self._rank} does not use")
        return self.take_by_nccl(src, header, dtype)

    def _in_memory_of_all(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        loans = self.loans
        return np.empty(shape, dtype) if loans is None else loans.shared.empty(shape, dtype)

    def readable(self, ranks: Iterable[int]) -> bool:
        """Whether something may have come from one of these ranks."""
        return any(self._incoming[r].readable() for r in ranks)

    # -- moving bytes -------------------------------------------------------------------------

    def move(self) -> bool:
        """Move what fits, both ways; whether anything did."""
        if not self.lock.acquire(blocking=False):
            return False  # the other thread is at it
        try:
            return self._move_all()
        finally:
            self.lock.release()

    def _move_all(self) -> bool:
        moved = False
        for dst, queue in self.queues.items():
            if queue:
                moved |= self._push(dst)
        for stream in self._incoming.values():
            if stream.readable():
                moved |= stream.pull()
        return moved

    def _push(self, dst: int) -> bool:
        queue, writer = self.queues[dst], self._writers[dst]
        moved = False
        while queue and queue[0].push(writer):
            moved = True
            if queue[0].parts:
                break
            queue.popleft()
        return moved

    def _fetch(self, src: int, header: Header, into: np.ndarray) -> bool:
        """Fill `into`, if the payload does not follow; whether it did."""
        loans = self.loans
        if loans is None or src not in loans.shared.here:
            if header.place:
                raise CommError(f"rank {src} points to memory that rank {self._rank} cannot reach")
        elif header.place:
            loans.fetch(src, header, into)
        else:  # so that the next one need not follow
            loans.shared.try_to_reach(loans.shared.here.index(src))
        return bool(header.place)

    # -- ranks that are lost (`losses`); all by whoever holds the lock ------------------------

    def close(self, rank: int) -> None:
        """Nothing goes to that rank or comes from it, until `open`."""
        self._writers[rank] = Closed()
        self._incoming[rank].open(Closed(), 0)
        self.queues[rank].clear()

    def open(self, rank: int, incarnation: int, stream: Any = None) -> None:
        """That incarnation of the rank is about to use its streams, or this one for both ways."""
        if stream is not None:
            self._streams[rank] = stream, stream
        self._writers[rank], reader = self._streams[rank]
        self._incoming[rank].open(reader, incarnation)

    def forget(self, rank: int) -> None:
        """Take in all that the rank has sent completely, and make what is between us as new."""
        self._incoming[rank].cut()
        self.close(rank)
        if self.loans is not None and rank in self.loans.shared.here:
            self.loans.forget(rank)
        for stream in self._streams[rank]:
            stream.clear()
