"""Ranks as MPI started them: minipar's own algorithms, over nothing but MPI's send and receive.

MPI moves bytes between two ranks; what is sent to whom and when is decided here, as on every other
backend. A rank that waits looks at everything that has arrived for it, so two opposite sends do not
block each other, however large they are.

There is no launcher of ours that sees ranks end. So they tell each other (`notices`): a rank that
fails says so to all others, whose waits end; one that returns says that, too. And since nobody can
read another rank's board over a network, a rank that has waited for long asks what it is doing.

A rank that fails may also say that it is lost, and the others go on (`losses`). Its process stays
until they have returned, for MPI would end them with it; and takes in what they have sent to it.

Left out on purpose: watching for deadlocks (a wait ends after timeout_s), and ranks that are killed
(MPI's own launcher sees that, and ends the job).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from minipar.comm.backoff import Backoff, wait_until
from minipar.comm.frame import Call, header_for
from minipar.comm.losses import (
    Losses,
    Lost,
    end_receives,
    watched_receive,
    watched_send,
    would_end,
)
from minipar.comm.mailbox import Mailbox, Receive, pending_receive
from minipar.comm.mpi import notices
from minipar.comm.mpi.notices import Kind, Notice
from minipar.comm.mpi.streams import HEAD, Arriving, Comm, Sending
from minipar.comm.staging import Staging
from minipar.comm.transport import (
    ANY,
    BUFFERED_BYTES,
    DEFAULT_TIMEOUT_S,
    Message,
    Pending,
    Transport,
    WaitForWork,
    gone,
    has_waited,
)
from minipar.comm.whereabouts import LAST_CALLS, Whereabouts, unpacked
from minipar.errors import CallMismatch, PeerLost, UsageError

KEPT_MESSAGES = 64  # sends up to BUFFERED_BYTES per receiver of which a copy waits for it
ANSWER_WITHIN_S = 0.2
TAGS = 1 << 15  # MPI promises tags below that


class MpiTransport(Transport):
    """One rank's end of a private communicator."""

    backend = "mpi"

    def __init__(
        self,
        comm: Comm = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        check: bool = True,
        reports: bool = False,
    ) -> None:
        """comm: all its ranks make a transport at the same time; None: all ranks there are.

        check:   whether the ranks compare their calls before a `native` one.
        reports: whether a rank may be lost while the others go on.
        """
        from mpi4py import MPI

        self._comm = (MPI.COMM_WORLD if comm is None else comm).Dup()
        self._comm.Set_errhandler(MPI.ERRORS_RETURN)  # as Python exceptions
        self._status = MPI.Status()
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        self.timeout_s, self.check_native = timeout_s, check
        self._mailbox, self._staging = Mailbox(), Staging()
        self._sending: list[Sending] = []
        self._telling: list[tuple[Any, bytes]] = []  # notices under way
        kept = self._mailbox, self._staging
        self._arriving = {r: Arriving(self._comm, r, *kept) for r in self._others()}
        self._communicators: dict[int, Comm] = {}
        self._calls = deque[Call](maxlen=LAST_CALLS)
        self._waits: dict[int, int] = {}  # for whom, by thread; a wait in vain stays there
        self._lock = threading.RLock()  # a rank may have a second thread (`asynchronous`)
        self._second = False
        self._answers: dict[int, str] = {}
        self.failed: dict[int, Notice] = {}  # by rank, in the order in which they told
        self.finished: dict[int, str] = {}  # by rank: its last call
        self.stopped: dict[int, Whereabouts] = {}
        self.patience_s = 1.0  # in which a job that has failed is over
        self._leaving: dict[int, str] = {}  # lost, and not yet noted as that
        self.losses = Losses(self.rank, self.size) if reports else None

    def _others(self) -> list[int]:
        return [r for r in range(self.size) if r != self.rank]

    # -- the contract ------------------------------------------------------------------------

    def isend(self, array: np.ndarray, dst: int, call: Call) -> Pending:
        header = header_for(call, array)
        if dst == self.rank:
            with self._lock:
                self._mailbox.deliver(Message(dst, header, array.copy()))
            return Pending(self, lambda: True, dst, call)
        if header.device:
            array = self._staging.down(array)
        with self._lock:
            if self.losses is not None:
                self.losses.check(call, dst)
            waiting = sum(sending.dst == dst for sending in self._sending)
            keep = array.nbytes <= BUFFERED_BYTES and waiting < KEPT_MESSAGES
            sending = Sending(self._comm, dst, header, array.copy() if keep else array)
            if not sending.look():
                self._sending.append(sending)
        if self.losses is not None:
            return watched_send(self, lambda: keep or sending.over, dst, call)
        return Pending(self, lambda: keep or sending.over, dst, call)

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
        self._raise_failure(None)
        self.move()

    def wait(self, ready: Callable[[], bool], whom: int, call: Call) -> None:
        me = threading.get_ident()
        self._waits[me] = whom
        wait_until(
            ready,
            self.move,
            partial(self.check, whom, call),
            partial(self._waiting_for, whom, call),
            self.timeout_s,
            gentle=self._second,
            silent=whom == ANY,
        )
        self._waits.pop(me, None)

    def check(self, whom: int, call: Call) -> None:
        self._raise_failure(call)
        if self.finished or self.losses is not None:
            self._raise_if_gone(whom, call)

    def announce(self, call: Call) -> None:
        self._calls.append(call)
        self._waits.pop(threading.get_ident(), None)

    def begin_second_thread(self) -> None:
        from mpi4py import MPI

        if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            raise UsageError("async_op=True needs an MPI library built for MPI_THREAD_MULTIPLE")

    @contextmanager
    def second_thread(self) -> Iterator[WaitForWork]:
        self._second = True
        yield _wait_for_work

    def close(self) -> CallMismatch | None:
        """Tell the others that this rank has returned; stay until all have, and have got what was
        sent to them: MPI must not be left with messages under way.

        Returns: the error of a message that nobody has asked for.  Raises: PeerLost.
        """
        self.tell(self._others(), Notice(Kind.FINISHED, self._doing))
        self.stay()
        if self.gone:
            return None  # of a collective that a loss has ended, something is always left
        did = f"the last call of rank {self.rank}: {self._doing}"
        return self._mailbox.never_taken(self.rank, lambda call: did)

    def stay(self) -> None:
        """Until all others have returned, or are lost, and nothing is under way."""
        backoff = Backoff()
        while not self._all_done():
            self._raise_failure(None)
            if self.move():
                backoff.spins = 0
            else:
                backoff.pause()

    @property
    def gone(self) -> set[int]:
        """The ranks that are lost."""
        return set() if self.losses is None else self.losses.for_good

    def _all_done(self) -> bool:
        arriving = any(a.under_way for a in self._arriving.values())
        return len(self.finished.keys() | self.gone) == self.size - 1 and not (
            self._sending or self._telling or arriving
        )

    # -- for `native` -------------------------------------------------------------------------

    def communicator(self, call: Call, ranks: tuple[int, ...]) -> Comm:
        """MPI's communicator of the call's group; all its ranks ask for it at the same time."""
        ident = call.group
        if ident not in self._communicators:
            group = self._comm.Get_group().Incl(ranks)
            self._communicators[ident] = self._comm.Create_group(group, ident % TAGS)
        return self._communicators[ident]

    def abort(self, code: int) -> None:
        """Have MPI end all ranks, this one too."""
        self._comm.Abort(code)

    @property
    def _doing(self) -> str:
        return str(self._calls[-1]) if self._calls else "none yet"

    def whereabouts(self) -> Whereabouts:
        """Of this rank."""
        whom = next((whom for whom in self._waits.values() if whom != self.rank), None)
        return Whereabouts(tuple(map(str, self._calls)), whom)

    # -- moving bytes -------------------------------------------------------------------------

    def move(self) -> bool:
        """Take in what has come, and let go of what has gone; whether there was anything."""
        if not self._lock.acquire(blocking=False):
            return False  # the other thread is at it
        try:
            return self._move()
        finally:
            self._lock.release()

    def _move(self) -> bool:
        moved = False
        while (probed := self._comm.Improbe(tag=HEAD, status=self._status)) is not None:
            head, src = bytearray(self._status.Get_count()), self._status.Get_source()
            probed.Recv(head)
            moved = True
            if notices.is_notice(head):
                self._hear(src, notices.unpack(head))
            else:
                self._arriving[src].hear(head)
        for arriving in self._arriving.values():
            moved |= arriving.under_way and arriving.pull()
        for src in [r for r in self._leaving if not self._arriving[r].under_way]:
            self._note_lost(Lost(src, 0, self._leaving.pop(src), returns=False))
        if self._sending:
            self._sending = [sending for sending in self._sending if not sending.look()]
        if self._telling:
            self._telling = [pair for pair in self._telling if not pair[0].Test()]
        return moved

    # -- what ranks tell each other -------------------------------------------------------------

    def tell(self, ranks: list[int], notice: Notice) -> None:
        raw = notices.pack(notice)
        with self._lock:
            self._telling += [(self._comm.Isend(raw, rank, HEAD), raw) for rank in ranks]

    def _hear(self, src: int, notice: Notice) -> None:
        match notice:
            case Notice(Kind.FAILED):
                self.failed[src] = notice
            case Notice(Kind.LOST, text):
                self._leaving[src] = text
            case Notice(Kind.STOPPED, text):
                self.stopped[src] = unpacked(text)
            case Notice(Kind.FINISHED, text):
                self.finished[src] = text
            case Notice(Kind.ASK):
                self.tell([src], Notice(Kind.DOING, self._doing))
            case Notice(Kind.DOING, text):
                self._answers[src] = text

    def _note_lost(self, lost: Lost) -> None:
        """All that it has sent is in the mailbox."""
        if self.losses is None:
            self.failed[lost.rank] = Notice(Kind.FAILED, lost.why, 1)
            return
        self.losses.note(lost)
        end_receives(self._mailbox)

    def _last_call_of(self, rank: int) -> str:
        """Its answer to the question; a rank that computes, or is stopped, gives none."""
        if rank in self.finished:
            return self.finished[rank]
        self._answers.pop(rank, None)
        self.tell([rank], Notice(Kind.ASK))
        until = time.monotonic() + ANSWER_WITHIN_S
        while rank not in self._answers and time.monotonic() < until:
            self.move()
        return self._answers.get(rank, "unknown, since it does not answer (it computes, or hangs)")

    # -- giving up ----------------------------------------------------------------------------

    def _raise_failure(self, call: Call | None) -> None:
        if self.failed:
            first, *_ = self.failed.values()
            if call is None:
                raise PeerLost(first.text)
            raise PeerLost(f"{first.text.rstrip('.')}; rank {self.rank} was in {call}")

    def _raise_if_gone(self, whom: int, call: Call) -> None:
        """A rank that has returned sends nothing more once its last message has arrived."""
        awaited = self._arriving.keys() if whom == ANY else {whom}
        if not awaited <= self.finished.keys() | self.gone or any(
            self._arriving[r].under_way for r in awaited
        ):
            return
        last = {r: self.finished.get(r, "unknown, since it is lost") for r in awaited}
        raise gone(self.rank, call, last, self._mailbox.unasked(whom))

    def _waiting_for(self, whom: int, call: Call, waited: float) -> str:
        last = self._last_call_of(whom) if whom != ANY else "unknown"
        return has_waited(self.rank, waited, whom, call, last, self._mailbox.unasked(whom))


def _wait_for_work(arrived: threading.Semaphore, _: Callable[[], bool]) -> None:
    arrived.acquire()
