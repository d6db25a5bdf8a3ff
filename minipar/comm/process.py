"""Ranks as processes on one host, connected by byte rings in shared memory.

Every ordered pair of ranks has a ring of its own, and `Channels` moves the bytes. On that the
contract is kept in a few lines each:

    isend    a header and the array go into the receiver's queue, and into the ring what fits
    irecv    from the mailbox, which is filled by whatever moves bytes
    wait     move bytes until there is what it waits for

A wait never sleeps until somebody wakes it (see `backoff`), so no wake-up can be lost, and a dead
peer is noticed: the launcher reports it through `note_*`. Large arrays of ranks of one host need
not go through a ring at all: `loans` of one to another, and the `circle` of a whole group.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from minipar.comm.backoff import wait_until
from minipar.comm.board import Board
from minipar.comm.channels import Channels
from minipar.comm.circle import Circle, Circles
from minipar.comm.exchange import Exchange
from minipar.comm.frame import Call, Header, header_for
from minipar.comm.loans import Loan
from minipar.comm.losses import (
    Lost,
    Standing,
    end_receives,
    watched_receive,
    watched_send,
    would_end,
)
from minipar.comm.mailbox import Mailbox, Receive, pending_receive
from minipar.comm.streams import ByNccl, Reader, Writer
from minipar.comm.transport import (
    ANY,
    DEFAULT_TIMEOUT_S,
    Message,
    Pending,
    Transport,
    WaitForWork,
    gone,
    has_waited,
)
from minipar.errors import CallMismatch, CommError, Deadlock, Interrupted

AT_THE_END = Call(0, 0, "sending the rest", "", "its return")


class ProcessTransport(Transport):
    """One rank's end of the streams to all others."""

    backend = "process"

    def __init__(
        self,
        rank: int,
        size: int,
        board: Board,
        streams: Mapping[int, tuple[Writer, Reader]],
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """streams: to and from every other rank."""
        self.rank, self.size, self.timeout_s = rank, size, timeout_s
        self._mailbox, self._board = Mailbox(), board
        self._channels = Channels(rank, streams, self._mailbox)
        self._lock, self._move = self._channels.lock, self._channels.move
        self._peers = streams.keys()
        self._second: int | None = None  # the identity of its second thread (`asynchronous`)
        self._shared: Exchange | None = None
        self._circles: Circles | None = None
        self._failure: CommError | None = None
        self._finished: frozenset[int] = frozenset()

    # -- the contract ------------------------------------------------------------------------

    def isend(self, array: np.ndarray, dst: int, call: Call) -> Pending:
        header = header_for(call, array)
        if dst == self.rank:
            message = Message(dst, header, array.copy())
            message.incarnation = 0 if self.losses is None else self.losses.incarnation
            with self._lock:
                self._mailbox.deliver(message)
            return Pending(self, lambda: True, dst, call)
        if header.device:
            array = self._channels.staging.down(array)
        with self._lock:
            if self.losses is not None:
                self.losses.check(call, dst)
            done = self._channels.send(header, array, dst)
        if self.losses is not None:
            return watched_send(self, done, dst, call)
        return Pending(self, done, dst, call)

    def irecv(self, src: int, call: Call, out: np.ndarray | None = None) -> Pending:
        with self._lock:
            if self.losses is not None:
                return watched_receive(self, self._mailbox, src, call, out)
            return pending_receive(self, self._mailbox, Receive(src, call, out), call)

    def poll(self, src: int, call: Call) -> bool:
        self.progress()
        if self.losses is not None:
            return would_end(self.losses, self._mailbox, src, call)
        return self._mailbox.holds(src, call)

    def progress(self) -> None:
        self.raise_failure(None)
        self._move()

    def wait(self, ready: Callable[[], bool], whom: int, call: Call) -> None:
        if self._second == threading.get_ident():
            self._board.second_turns(self.rank, whom)
            try:
                self._wait(ready, whom, call, gentle=True)
            except CommError:
                self._board.give_up(self.rank, whom)
                raise
            finally:
                self._board.second_turns(self.rank)
            return
        self._board.begin_wait(self.rank, whom)
        try:
            self._wait(ready, whom, call, gentle=self._second is not None)
        except CommError as error:
            if whom != self.rank and not isinstance(error, CallMismatch):
                self._board.give_up(self.rank, whom)
            raise
        finally:
            self._board.end_wait(self.rank)

    def _wait(self, ready: Callable[[], bool], whom: int, call: Call, gentle: bool) -> None:
        wait_until(
            ready,
            self._move,
            partial(self.check, whom, call),
            partial(self._waiting_for, whom, call),
            self.timeout_s,
            gentle,
            silent=whom == ANY,
        )

    def check(self, whom: int, call: Call) -> None:
        self.raise_failure(call)
        if self._finished or self.losses is not None:
            self._raise_if_gone(whom, call)

    def share(self, exchange: Exchange) -> None:
        """From now on the ranks of this host show each other arrays through this."""
        self._shared, self._circles = exchange, Circles(exchange)
        exchange.check = self.raise_failure
        self._channels.share(exchange)

    def waits(self) -> list[tuple[Any, str]]:
        cells = [] if self._shared is None else [(self._shared, "wait_until")]
        return [*super().waits(), *cells]

    def circle(self, ranks: Sequence[int]) -> Circle | None:
        return None if self._circles is None else self._circles.of(ranks)

    def stranger(self, call: Call) -> Message | None:
        for stream in self._channels.near:
            if stream.readable():
                self._move()
                break
        return self._mailbox.contradiction(call)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.empty(shape, dtype) if self._shared is None else self._shared.empty(shape, dtype)

    def begin_second_thread(self) -> None:
        """Nothing to prepare."""

    @contextmanager
    def second_thread(self) -> Iterator[WaitForWork]:
        self._second = threading.get_ident()
        self._board.second_turns(self.rank)
        if self._shared is not None:
            self._shared.spins = self._shared.yields = 0
        try:
            yield self._wait_for_work
        finally:
            self._board.second_turns(self.rank)

    def _wait_for_work(self, arrived: threading.Semaphore, ready: Callable[[], bool]) -> None:
        self._board.second_turns(self.rank)
        arrived.acquire()
        self._board.second_turns(self.rank)

    def announce(self, call: Call) -> None:
        self._board.write(self.rank, call)
        self.raise_failure(call)

    def close(self) -> CallMismatch | None:
        """Wait until all that was sent is where its receiver finds it without this process.

        Returns: the error that it is if all ranks return well now.  Raises: as `wait`.
        """
        for dst in self._channels.queues:
            if self._channels.queues[dst]:
                self.wait(partial(self._is_rid_of, dst), dst, AT_THE_END)
        loans = self._channels.loans
        for loan in [] if loans is None else list(loans.open.values()):
            if loan.private:
                self.wait(partial(self._is_over, loan), loan.dst, AT_THE_END)
        self._move()
        if self.losses is not None and self.losses.count:
            return None  # of a collective that a loss has ended, something is always left
        return self._mailbox.never_taken(self.rank, partial(self._board.did, self.rank))

    def _is_rid_of(self, dst: int) -> bool:
        return not self._channels.queues[dst] or dst in self._finished

    def _is_over(self, loan: Loan) -> bool:
        return loan.over() or loan.dst in self._finished

    # -- for a transport that brings arrays of a GPU itself (`nccl`) ----------------------------

    def take_by_nccl(self, take: ByNccl) -> None:
        """From now on headers of messages that come by NCCL make this message."""
        self._channels.take_by_nccl = take

    def send_header(self, header: Header, dst: int) -> None:
        """Send a header, whose payload takes another way."""
        with self._lock:
            self._channels.send(header, np.empty(0, np.uint8), dst)

    def post(self, receive: Receive) -> None:
        """Ask for a message while bytes are being moved."""
        self._mailbox.post(receive)

    def note_progress(self) -> None:
        """This rank waits for something that is no message; so it is no deadlock."""
        self._board.fetched_some(self.rank)

    @property
    def place(self) -> int:
        """The number of this rank among those of its host."""
        return self.rank if self._shared is None else self._shared.place

    def last_call_of(self, rank: int) -> str:
        return self._board.read(rank)

    @property
    def failure(self) -> CommError | None:
        """What has ended the job, if it has."""
        return self._failure

    # -- what the launcher reports, from another thread ---------------------------------------

    def note_failure(self, failure: CommError) -> None:
        """From now on every wait raises this; the first one counts."""
        self._failure = self._failure or failure

    def note_finished(self, rank: int) -> None:
        """That rank has returned: nothing more will come from it."""
        self._finished = self._finished | {rank}

    # -- lost ranks, if they are reported (`losses`) ------------------------------------------

    def report(self, standing: Standing) -> None:
        """From now on, which is before any group is made, the end of a rank ends only calls that
        involve it. Collectives take messages: notes in cells would lose count of each other.
        """
        self.losses = losses = standing.losses(self.rank, self.size)
        self._finished, self._circles = standing.finished, None
        if self._shared is not None:
            self._shared.reports = True
        for rank in self._peers:
            self._channels.close(rank)
            if rank not in standing.absent | losses.for_good:
                self.note_joined(rank, losses.current(rank))

    def note_lost(self, lost: Lost) -> None:
        """Take in all that the rank has sent completely, and make its channels as new."""
        if self._shared is not None:
            self._shared.vanished.add(lost.rank)  # first: a copy from it, under way, has the lock
        with self._lock:
            self._channels.forget(lost.rank)
            self.losses.note(lost)
            end_receives(self._mailbox)
        self._board.note_heard(self.rank, self.losses.count)

    def note_joined(self, rank: int, incarnation: int, stream: Any = None) -> bool:
        """That incarnation of a rank is about to use its channels, or (of another host) this
        stream; False if it is lost already.
        """
        with self._lock:
            if incarnation != self.losses.current(rank):
                return False
            self._channels.open(rank, incarnation, stream)
            if self._shared is not None:
                self._shared.vanished.discard(rank)
        return True

    # -- giving up ----------------------------------------------------------------------------

    def raise_failure(self, call: Call | None) -> None:
        """What has ended the job, with the call in which this rank learns of it."""
        if self._failure is not None:
            everybody = isinstance(self._failure, Deadlock | Interrupted)
            where = "" if call is None or everybody else f"; rank {self.rank} was in {call}"
            text = str(self._failure)
            raise type(self._failure)(text.rstrip(".") + where if where else text)

    def _raise_if_gone(self, whom: int, call: Call) -> None:
        """A rank that has returned sends nothing more once its ring is empty."""
        awaited = self._peers if whom == ANY else {whom}
        over = self._finished if self.losses is None else self._finished | self.losses.for_good
        if not awaited <= over or self._channels.readable(awaited):
            return
        last = {r: self._board.read(r) for r in awaited}
        raise gone(self.rank, call, last, self._mailbox.unasked(whom))

    def _waiting_for(self, whom: int, call: Call, waited: float) -> str:
        last = self._board.read(whom) if whom != ANY else "unknown"
        return has_waited(self.rank, waited, whom, call, last, self._mailbox.unasked(whom))
