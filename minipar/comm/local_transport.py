"""The transport between the threads of a `LocalWorld`: a message is put into a mailbox.

    isend    a Message into the receiver's mailbox: a copy of the array if it is small, else the
             array itself, which is free again once the receiver has it
    irecv    from the rank's own mailbox
    wait     hands the baton on until there is what it waits for

All else of how ranks take turns, end and are lost is the world's. If that has a clock, a message is
sent by the clock (`virtual`), and what is computed and added up takes time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from minipar.comm.frame import Call, header_for
from minipar.comm.local import LocalWorld
from minipar.comm.losses import watched_receive, watched_send, would_end
from minipar.comm.mailbox import Receive, pending_receive
from minipar.comm.transport import Message, Pending, Transport, WaitForWork
from minipar.comm.virtual import isend_in_time
from minipar.errors import CallMismatch


class LocalTransport(Transport):
    """One rank's end of a LocalWorld."""

    backend = "local"

    def __init__(self, world: LocalWorld, rank: int) -> None:
        self.rank, self.size, self._world = rank, world.size, world
        self.losses = None if world.losses is None else world.losses[rank]
        self._second: int | None = None  # the identity of the second thread

    def isend(self, array: np.ndarray, dst: int, call: Call) -> Pending:
        clock, mailbox = self._world.clock, self._world.mail[dst]
        buffered = clock is not None or array.nbytes <= self._world.buffer_bytes
        payload = array.copy() if buffered else array
        message = Message(self.rank, header_for(call, array), payload, owned=buffered)
        if self.losses is not None:
            self.losses.check(call, dst)
            message.incarnation = self.losses.incarnation
        if clock is not None:
            return isend_in_time(clock, self, message, dst, mailbox)
        mailbox.deliver(message)
        has_gone = partial(self._world.has_let_go, message, dst)
        if self.losses is not None:
            return watched_send(self, has_gone, dst, call)
        return Pending(self, has_gone, dst, call)

    def irecv(self, src: int, call: Call, out: np.ndarray | None = None) -> Pending:
        mailbox = self._world.mail[self.rank]
        if self.losses is not None:
            return watched_receive(self, mailbox, src, call, out)
        return pending_receive(self, mailbox, Receive(src, call, out), call)

    def poll(self, src: int, call: Call) -> bool:
        self.progress()
        holds = partial(self._holds, src, call)
        if not holds():
            self._world.note_no(self._thread(), (src, call))
        return holds()

    def _holds(self, src: int, call: Call) -> bool:
        mailbox = self._world.mail[self.rank]
        if self.losses is not None:
            return would_end(self.losses, mailbox, src, call)
        return mailbox.holds(src, call)

    @property
    def virtual(self) -> bool:
        return self._world.clock is not None

    def now_ns(self) -> int:
        clock = self._world.clock
        return super().now_ns() if clock is None else clock.now

    def spend(self, seconds: float) -> None:
        if self._world.clock is not None:
            self._world.clock.compute(self._thread(), seconds)
            self._world.until_due(self._thread())

    def added(self, nbytes: int) -> None:
        if self._world.clock is not None:
            self._world.clock.add(self._thread(), nbytes)
            self._world.until_due(self._thread())

    def progress(self) -> None:
        self._world.give_others_a_turn(self._thread())

    def wait(self, ready: Callable[[], bool], whom: int, call: Call) -> None:
        self._world.wait(self._thread(), ready, whom, call)

    def _thread(self) -> int:
        return 2 * self.rank + (threading.get_ident() == self._second)

    def check(self, whom: int, call: Call) -> None:
        self._world.note_fruitless(self.rank, whom, call)

    def announce(self, call: Call) -> None:
        self._world.announce(self.rank, call)

    def begin_second_thread(self) -> None:
        self._world.expect_second(self.rank)

    @contextmanager
    def second_thread(self) -> Iterator[WaitForWork]:
        self._second = threading.get_ident()
        with self._world.second(self.rank):
            yield lambda _, ready: self._world.wait_for_work(2 * self.rank + 1, ready)

    def close(self) -> CallMismatch | None:
        """An unfinished send stays readable for its receiver."""
        if self.losses is not None and self.losses.count:
            return None  # of a collective that a loss has ended, something is always left
        return self._world.never_taken(self.rank)
