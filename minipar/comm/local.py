"""Ranks as threads of one process that pass a baton: exactly one runs at any moment.

A rank gives the baton away only inside communication: when it waits, and when it asks whether
something is done. The next one is the first after it, in rank order, that can go on. So a run is
the same to the event every time, a debugger stops everybody, and a deadlock is not a matter of
time: when a rank waits and nobody can go on, it is there, and can be named.

    rank 0  ===wait            ===wait      === runs, holds the baton
    rank 1         ===wait                  each `wait` hands it to the next rank that can run
    rank 2                ===

`LocalWorld(size, buffer_bytes=0)` shows true rendezvous: a send waits for its receive, whatever its
size, as it does on NCCL.

Left out on purpose: time. Nobody waits on a clock here, so there is no timeout.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from minipar.comm.deadlock import report
from minipar.comm.frame import Call, header_for
from minipar.comm.transport import (
    BUFFERED_BYTES,
    Mailbox,
    Message,
    Pending,
    Receive,
    pending_receive,
)
from minipar.errors import CallMismatch, CommError, Deadlock, Interrupted, PeerLost, said

PATIENCE = 10_000  # how often a rank may ask `done()` in vain


class LocalWorld:
    """The baton, the mailboxes, and who waits for what."""

    def __init__(self, size: int, buffer_bytes: int = BUFFERED_BYTES) -> None:
        self.size, self.buffer_bytes = size, buffer_bytes
        self.mail = [Mailbox() for _ in range(size)]
        self.failure: CommError | None = None  # once set, every wait raises it
        self._turn = [threading.Semaphore(0) for _ in range(size)]
        self._waits: list[tuple[Callable[[], bool], int, Call] | None] = [None] * size
        self._last: list[object] = ["none yet"] * size  # the last call of each rank
        self._finished = [False] * size
        self._asked = [0] * size  # how often in vain, without anybody else being able to run

    def start(self) -> None:
        """Give the baton to rank 0."""
        self._turn[0].release()

    def enter(self, rank: int) -> None:
        """Wait for this rank's first turn."""
        self._turn[rank].acquire()

    def leave(self, rank: int, failed: BaseException | None = None) -> None:
        """This rank is over; whoever still waits for it will be told why."""
        self._finished[rank] = True
        if failed is not None:
            self.stop(PeerLost(f"rank {rank} raised {type(failed).__name__}: {said(failed)}"))
        self._pass_on(rank)

    def announce(self, rank: int, call: Call) -> None:
        """Note what the rank is doing, for the messages about ranks that have finished."""
        self._last[rank] = call

    def never_taken(self, rank: int) -> CallMismatch | None:
        """The error if the rank returns now and leaves a message of a collective; None if not."""
        return self.mail[rank].never_taken(rank, self._last[rank])

    def mismatch_at_the_end(self) -> tuple[int, CommError] | None:
        """The first rank that never took a message of a collective, and the error that says so."""
        for rank in range(self.size):
            error = self.never_taken(rank)
            if error is not None:
                return rank, error
        return None

    def stop(self, failure: CommError) -> None:
        """Make every wait, now and later, raise; the first failure is the one that counts."""
        self.failure = self.failure or failure

    def wait(self, rank: int, ready: Callable[[], bool], whom: int, call: Call) -> None:
        self._waits[rank] = (ready, whom, call)
        while self.failure is None and not ready():
            self._switch(rank)
        self._waits[rank] = None
        if self.failure is not None and not ready():
            raise _for_rank(self.failure, rank, call)

    def has_let_go(self, message: Message, dst: int) -> bool:
        """Whether the sender may change its array again. A rank that waits, for whatever, takes in
        what arrives; with buffer_bytes=0 only a receive does (rendezvous).
        """
        if self.buffer_bytes and not message.taken and self._waits[dst] is not None:
            message.keep()
        return message.owned or message.taken

    def give_others_a_turn(self, rank: int) -> None:
        self._switch(rank)
        if self.failure is not None:
            raise type(self.failure)(str(self.failure))

    def note_fruitless(self, rank: int, whom: int, call: Call) -> None:
        """A rank has asked in vain whether something is done. That is no wait, but if it has asked
        very often while all others wait or have finished, it will ask for ever.
        """
        others = (r for r in range(self.size) if r != rank)
        self._asked[rank] = 0 if any(self._can_run(r) for r in others) else self._asked[rank] + 1
        if self._asked[rank] > PATIENCE:
            self._waits[rank] = (lambda: False, whom, call)
            self.stop(Deadlock(self._explain()))
            raise Deadlock(str(self.failure))

    def _switch(self, rank: int) -> None:
        if self._pass_on(rank):
            self._turn[rank].acquire()

    def _pass_on(self, rank: int) -> bool:
        """Hand the baton to the next rank that can run; False if it stays here."""
        following = [(rank + i) % self.size for i in range(1, self.size + 1)]
        chosen = next((r for r in following if self._can_run(r)), None)
        if chosen is None and not all(self._finished):
            self.stop(Deadlock(self._explain()))
            chosen = next(r for r in following if not self._finished[r])
        if chosen is None or chosen == rank:
            return False
        self._turn[chosen].release()
        return True

    def _can_run(self, rank: int) -> bool:
        waiting = self._waits[rank]
        if self._finished[rank]:
            return False
        return waiting is None or self.failure is not None or waiting[0]()

    def _explain(self) -> str:
        waits = [
            (None, str(self._last[rank]))
            if done or waiting is None
            else (waiting[1], f"{waiting[2]}{self.mail[rank].unasked(waiting[1])}")
            for rank, (waiting, done) in enumerate(zip(self._waits, self._finished, strict=True))
        ]
        return report(waits)


def _for_rank(failure: CommError, rank: int, call: Call) -> CommError:
    if isinstance(failure, Deadlock | Interrupted):
        return type(failure)(str(failure))
    return type(failure)(f"{failure}; rank {rank} was in {call}")


class LocalTransport:
    """One rank's end of a LocalWorld."""

    backend = "local"

    def __init__(self, world: LocalWorld, rank: int) -> None:
        self.rank, self.size, self._world = rank, world.size, world

    def isend(self, array: np.ndarray, dst: int, call: Call) -> Pending:
        buffered = array.nbytes <= self._world.buffer_bytes
        payload = array.copy() if buffered else array
        message = Message(self.rank, header_for(call, array), payload, owned=buffered)
        self._world.mail[dst].deliver(message)
        return Pending(self, lambda: self._world.has_let_go(message, dst), dst, call)

    def irecv(self, src: int, call: Call, out: np.ndarray | None = None) -> Pending:
        mailbox = self._world.mail[self.rank]
        return pending_receive(self, mailbox, Receive(src, call, out), call)

    def poll(self, src: int, call: Call) -> bool:
        self.progress()
        return self._world.mail[self.rank].holds(src, call)

    def progress(self) -> None:
        self._world.give_others_a_turn(self.rank)

    def wait(self, ready: Callable[[], bool], whom: int, call: Call) -> None:
        self._world.wait(self.rank, ready, whom, call)

    def check(self, whom: int, call: Call) -> None:
        self._world.note_fruitless(self.rank, whom, call)

    def announce(self, call: Call) -> None:
        self._world.announce(self.rank, call)

    def close(self) -> CallMismatch | None:
        """An unfinished send stays readable for its receiver."""
        return self._world.never_taken(self.rank)
