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

`LocalWorld(size, cluster=...)` has a clock of its own (`virtual`), and the next one is then whoever
has the smallest time. No clock of the machine is ever waited for, so there is no timeout.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from minipar.comm.cluster import Cluster
from minipar.comm.deadlock import report
from minipar.comm.failure import Failure
from minipar.comm.frame import Call
from minipar.comm.losses import Losses, Lost, end_receives
from minipar.comm.mailbox import Mailbox
from minipar.comm.transport import BUFFERED_BYTES, Message
from minipar.comm.virtual import Clock, Gone
from minipar.comm.whereabouts import FINISHED, LAST_CALLS, Whereabouts
from minipar.errors import CallMismatch, CommError, Deadlock, Interrupted, PeerLost, said

IDLE = Call(0, 0, "waiting for work", "", "its second thread")
AGAIN = Call(0, 0, "starting again", "", "its beginning")
PATIENCE = 10_000  # how often a rank may ask `done()` in vain


class LocalWorld:
    """The baton, the mailboxes, and who waits for what."""

    def __init__(
        self,
        size: int,
        buffer_bytes: int = BUFFERED_BYTES,
        restarts: int | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        """restarts: how many lost ranks are started again; None: a lost rank ends the run."""
        self.size, self.buffer_bytes = size, buffer_bytes
        self.clock: Clock | None = None
        if cluster is not None:
            self.clock = Clock(cluster, size, self._can_run, self._lost_now)
        self._news = False  # whether a rank has ended, or all have to; else what a thread does
        # lets at most the other one of its rank go on, and what arrives those that it is for
        self.restarts, self.lost = restarts, list[Lost]()
        self.losses = [Losses(r, size) for r in range(size)] if restarts is not None else None
        self.mail = [Mailbox() for _ in range(size)]
        self.failure: CommError | None = None  # once set, every wait raises it
        # A rank may have a second thread (`asynchronous`): thread 2r is rank r, 2r+1 its second.
        self._turn = [_held() for _ in range(2 * size)]
        self._waits: list[tuple[Callable[[], bool], int, Call] | None] = [None] * (2 * size)
        self._last = [deque[Call](maxlen=LAST_CALLS) for _ in range(size)]  # calls of each rank
        self._then: list[Whereabouts] = []  # of all ranks, when the first failure came
        self._finished = [False, True] * size
        self.fates = [""] * size  # what has become of each rank, once it has ended
        self._gone = set[int]()  # threads of ranks that are lost by declaration, until they end
        self._over = [False] * size  # whether a rank's second thread is to end
        self._asked = [0] * size  # how often in vain, without anybody else being able to run

    def start(self) -> None:
        """Give the baton to rank 0."""
        self._turn[0].release()

    def enter(self, rank: int) -> None:
        """Wait for this rank's first turn."""
        self._turn[2 * rank].acquire()

    def leave(self, rank: int, failed: BaseException | None = None) -> None:
        """This rank is over; whoever still waits for it will be told why."""
        why = self.fates[rank]  # it was lost, if it has any yet
        if not why:
            self.fates[rank] = FINISHED if failed is None else f"raised {type(failed).__name__}"
            why = f"{self.fates[rank]}: {said(failed)}" if failed is not None else ""
        self._finished[2 * rank] = self._over[rank] = self._news = True
        if failed is not None and self.losses is None:
            self.stop(PeerLost(f"rank {rank} {why}"))
        self._pass_on(2 * rank)

    def lose(self, rank: int, failed: BaseException) -> Lost | None:
        """This rank has raised: the others are told, if they are to go on."""
        if self.losses is None or self.failure is not None:
            return None
        if self.clock is not None:  # what it has sent comes first
            self.wait_for_work(2 * rank, partial(self.clock.all_arrived, rank))
        why = Failure.of(rank, failed).why
        returns = bool(self.restarts)
        self.restarts = (self.restarts or 0) - returns
        lost = Lost(rank, self.losses[rank].incarnation, why, returns)
        self.lost.append(lost)
        for mailbox, losses in zip(self.mail, self.losses, strict=True):
            losses.note(lost)
            end_receives(mailbox)  # those of its own second thread, too
        self.mail[rank] = Mailbox()
        self._over[rank] = self._news = True
        self._gone.discard(2 * rank)
        return lost

    def start_again(self, rank: int) -> None:
        """Return when the second thread of the lost incarnation has ended."""
        assert self.losses is not None
        self.wait(2 * rank, lambda: self._finished[2 * rank + 1], rank, AGAIN)
        self._over[rank], self.fates[rank] = False, ""
        self.losses[rank] = Losses(rank, self.size, self.lost)

    def expect_second(self, rank: int) -> None:
        """The rank is about to start its second thread, which then runs as soon as it may."""
        self._finished[2 * rank + 1] = False

    @contextmanager
    def second(self, rank: int) -> Iterator[None]:
        """Around all that the second thread of a rank does."""
        thread = 2 * rank + 1
        self._turn[thread].acquire()
        try:
            yield
        finally:
            self._finished[thread] = True
            self._gone.discard(thread)
            self._pass_on(thread)

    def announce(self, rank: int, call: Call) -> None:
        """Note what the rank is doing, for the messages about ranks that have finished."""
        self._check(2 * rank)
        self._last[rank].append(call)

    def never_taken(self, rank: int) -> CallMismatch | None:
        """The error if the rank returns now and leaves a message of a collective; None if not."""
        did = f"the last call of rank {rank}: {self._whereabouts(rank).call}"
        return self.mail[rank].never_taken(rank, lambda call: did)

    def mismatch_at_the_end(self) -> tuple[int, CommError] | None:
        """The first rank that never took a message of a collective, and the error that says so."""
        if self.lost:
            return None
        for rank in range(self.size):
            error = self.never_taken(rank)
            if error is not None:
                return rank, error
        return None

    def stop(self, failure: CommError) -> None:
        """Make every wait, now and later, raise; the first failure is the one that counts."""
        if self.failure is None:
            self._then = self.whereabouts()
        self.failure, self._news = self.failure or failure, True

    def wait(self, thread: int, ready: Callable[[], bool], whom: int, call: Call) -> None:
        self._waits[thread] = (ready, whom, call)
        while self.failure is None and not ready():
            self._rest(thread)
        self._waits[thread] = None
        if self.failure is not None and not ready():
            raise _for_rank(self.failure, thread // 2, call)

    def wait_for_work(self, thread: int, ready: Callable[[], bool]) -> None:
        """As `wait`, by a second thread that has nothing to do: it returns when there is work, or
        when its rank is over; what fails elsewhere does not concern it.
        """

        def over_or_ready() -> bool:
            return self._over[thread // 2] or ready()

        self._waits[thread] = (over_or_ready, thread // 2, IDLE)
        while not over_or_ready():
            self._switch(thread)
        self._waits[thread] = None

    def has_let_go(self, message: Message, dst: int) -> bool:
        """Whether the sender may change its array again. A rank that waits, for whatever, takes in
        what arrives; with buffer_bytes=0 only a receive does (rendezvous).
        """
        waits = self._waits[2 * dst] is not None or self._waits[2 * dst + 1] is not None
        if self.buffer_bytes and not message.taken and waits:
            message.keep()
        return message.owned or message.taken

    def give_others_a_turn(self, thread: int) -> None:
        if self.clock is not None:
            self.clock.ask(thread)
        self._rest(thread)
        if self.failure is not None:
            raise type(self.failure)(str(self.failure))

    def until_due(self, thread: int) -> None:
        """Go on when the clock says so, which has been told what this thread does."""
        self._rest(thread)

    def note_no(self, thread: int, question: object) -> None:
        """A thread has asked in vain; if it does nothing else, let time go by."""
        if self.clock is not None and self.clock.asks_again(thread, question):
            self._rest(thread)

    def note_fruitless(self, rank: int, whom: int, call: Call) -> None:
        """A rank has asked in vain whether something is done. That is no wait, but if it has asked
        very often while all others wait or have finished, it will ask for ever.
        """
        self.note_no(2 * rank, (whom, call))
        others = (t for t in range(2 * self.size) if t != 2 * rank)
        idle = self.clock is None or self.clock.idle()
        lively = not idle or any(self._can_run(t) for t in others)
        self._asked[rank] = 0 if lively else self._asked[rank] + 1
        if self._asked[rank] > PATIENCE:
            self._waits[2 * rank] = (lambda: False, whom, call)
            self.stop(Deadlock(report(self.whereabouts())))
            raise Deadlock(str(self.failure))

    # -- ranks that the cluster declares lost ---------------------------------------------------

    def _lost_now(self, rank: int) -> list[int]:
        """Note that the rank is lost at this moment: the threads that this ends."""
        if self._finished[2 * rank] or self._idle(2 * rank):  # it has ended, or is about to
            return []
        assert self.clock is not None
        moment = f"{self.clock.now / 1e6:.6f}".rstrip("0").rstrip(".")
        self.fates[rank] = f"was lost at {moment} ms of virtual time"
        threads = [2 * rank, 2 * rank + 1]
        self._gone.update(thread for thread in threads if not self._finished[thread])
        return [t for t in threads if not self._finished[t] and not self._idle(t)]

    def _idle(self, thread: int) -> bool:
        waiting = self._waits[thread]
        return waiting is not None and waiting[2] is IDLE

    def _check(self, thread: int) -> None:
        """Raises: Gone, wherever a thread of a lost rank would go on."""
        if thread in self._gone:
            self._waits[thread] = None
            raise Gone(f"rank {thread // 2} {self.fates[thread // 2]}")

    def _rest(self, thread: int) -> None:
        self._check(thread)
        self._switch(thread)
        self._check(thread)

    # -- the baton ------------------------------------------------------------------------------

    def _switch(self, thread: int) -> None:
        if self._pass_on(thread):
            self._turn[thread].acquire()

    def _pass_on(self, thread: int) -> bool:
        """Hand the baton to the next thread that can run; False if it stays here."""
        if self.clock is None:
            chosen = next((t for t in self._following(thread) if self._can_run(t)), None)
        else:
            news, self._news = self._news, False
            chosen = self.clock.next(self._following(thread) if news else [thread ^ 1])
        if chosen is None and not all(self._finished):
            self.stop(Deadlock(report(self.whereabouts())))
            chosen = next(t for t in self._following(thread) if not self._finished[t])
        if chosen is None or chosen == thread:
            return False
        with suppress(RuntimeError):  # given to it already, by a thread that outlives its rank
            self._turn[chosen].release()
        return True

    def _following(self, thread: int) -> Iterator[int]:
        """All threads, the next one first."""
        threads = 2 * self.size
        return ((thread + i) % threads for i in range(1, threads + 1))

    def _can_run(self, thread: int) -> bool:
        waiting = self._waits[thread]
        if self._finished[thread]:
            return False
        if waiting is None or waiting[0]():
            return True
        return self.failure is not None and waiting[2] is not IDLE

    def whereabouts(self) -> list[Whereabouts]:
        """Of all ranks: now or, if the run has failed, when it did."""
        return self._then or [self._whereabouts(rank) for rank in range(self.size)]

    def _whereabouts(self, rank: int) -> Whereabouts:
        calls, waiting = tuple(map(str, self._last[rank])), self._awaited(rank)
        if self.failure is None and any(map(self._can_run, (2 * rank, 2 * rank + 1))):
            return Whereabouts(calls)  # what it waits for is there, but it had no turn yet
        if waiting is None:
            lost = {lost.rank for lost in self.lost if not lost.returns}
            return Whereabouts(calls, fate="is lost" if rank in lost else self.fates[rank])
        whom, call = waiting
        return Whereabouts(calls, whom, within=f"{call}{self.mail[rank].unasked(whom)}")

    def _awaited(self, rank: int) -> tuple[int, Call] | None:
        """Whom the rank waits for and in what call; None if it has finished."""
        first, second = self._waits[2 * rank : 2 * rank + 2]
        if self._finished[2 * rank] or first is None:
            return None
        if first[1] == rank and second is not None and second[2] is not IDLE:
            return second[1:]  # it waits for a handle, and its second thread for somebody else
        return first[1:]


def _for_rank(failure: CommError, rank: int, call: Call) -> CommError:
    if isinstance(failure, Deadlock | Interrupted):
        return type(failure)(str(failure))
    return type(failure)(f"{failure}; rank {rank} was in {call}")


def _held() -> threading.Lock:
    """A lock that somebody holds: whoever acquires it waits until it is released, once.

    A semaphore of one, which nothing more is needed of, at half its cost.
    """
    lock = threading.Lock()
    lock.acquire()
    return lock
