"""The contract between the collectives and whatever carries their messages.

A transport connects `size` ranks and moves arrays between pairs of them. It owes three things:

1. Messages of one pair and lane (see `Call.lane`) arrive in the order in which they were sent.
2. Opposite sends never block each other: a rank that waits, for whatever, takes in what arrives.
3. Every wait ends: with the message, or with an exception that says whom it waited for and why
   nothing will come.

`isend` keeps the array until the send is done; up to BUFFERED_BYTES it is done at once, because
the transport has taken a copy. Ranks here are ranks in the world; `Group` translates.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from minipar.array import Array, on_host
from minipar.comm.frame import Call, Header
from minipar.comm.on_device import Later, in_callers_stream
from minipar.comm.wiring import Circle
from minipar.errors import CallMismatch, CommError, PeerLost, UsageError

ANY = -1  # as `src`: the first message of the group, whoever sent it
BUFFERED_BYTES = 256 * 1024
DEFAULT_TIMEOUT_S = 300.0
WaitForWork = Callable[[threading.Semaphore, Callable[[], bool]], None]


class Transport(Protocol):
    """What `Group` asks of a backend."""

    backend: str  # its name, as --backend spells it
    rank: int
    size: int
    losses: Any = None  # a `losses.Losses` where lost ranks are reported

    def isend(self, array: np.ndarray, dst: int, call: Call) -> Pending:
        """Begin to send; `wait()` returns when `array` may be changed."""

    def irecv(self, src: int, call: Call, out: np.ndarray | None = None) -> Pending:
        """Ask for the next message in the call's lane from src; `wait()` returns the `Message`."""

    def poll(self, src: int, call: Call) -> bool:
        """Whether a message in the call's lane from src (or ANY) is there, not yet asked for."""

    def progress(self) -> None:
        """Move what can be moved now, without waiting."""

    def wait(self, ready: Callable[[], bool], whom: int, call: Call) -> None:
        """Return when ready() is true.  Raises: PeerLost, CommTimeout, Deadlock, Interrupted."""

    def check(self, whom: int, call: Call) -> None:
        """Raise PeerLost or Deadlock if it is known that nothing more will come from `whom`."""

    def announce(self, call: Call) -> None:
        """Note what this rank is doing, for the messages of ranks that come to wait for it."""

    def close(self) -> CallMismatch | None:
        """Finish what was sent.  Returns: the error that it would be if the run ended well now."""

    # What a transport may offer; those that inherit from this class get the plain answers.

    @property
    def virtual(self) -> bool:
        """Whether `now_ns` is the time of a declared cluster."""
        return False

    def now_ns(self) -> int:
        """Nanoseconds of this rank's clock; only differences mean anything."""
        return time.perf_counter_ns()

    def spend(self, seconds: float) -> None:
        """This rank has computed for so long, if its time is declared and not measured."""
        return

    def added(self, nbytes: int) -> None:
        """This rank has added up so many bytes, if its time is declared and not measured."""
        return

    def waits(self) -> list[tuple[Any, str]]:
        """The methods in which this rank waits, as (owner, name); the last two arguments of each
        are whom it waits for, and the call. A trace puts timed ones in their place.
        """
        return [(self, "wait")]

    def circle(self, ranks: Sequence[int]) -> Circle | None:
        """These ranks (the own one among them), if they can show each other arrays in memory."""
        return None

    def stranger(self, call: Call) -> Message | None:
        """A message that proves that its sender was not in this call, which used no messages."""
        return None

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array in memory that the other ranks reach best.  Raises: SharedMemoryFull."""
        return np.empty(shape, dtype)

    def on_device(
        self, work: Callable[[], Any], call: Call, native: bool
    ) -> Callable[[], Any | Later]:
        """work, for arrays of a GPU: it comes after all that the caller has asked of that so far.

        native: whether a library's own collective does the work.  Its result may be `Later`.
        """
        return in_callers_stream(work)

    def begin_second_thread(self) -> None:
        """This rank is about to start a second thread (`asynchronous`), which will use it, too."""
        raise UsageError(f"async_op: ranks of backend {self.backend!r} have no second thread")

    def second_thread(self) -> AbstractContextManager[WaitForWork]:
        """Around all that the second thread does; what waits for its next work."""
        raise NotImplementedError


class Message:
    """An array that has arrived, or is about to; `taken` once a receive has got it."""

    incarnation = 0  # of its sender

    def __init__(self, src: int, header: Header, array: Array, *, owned: bool = True) -> None:
        self.src, self.header, self.array = src, header, array
        self.owned = owned  # False: the array is still the sender's
        self.taken = False
        # If the array is still on its way to a GPU: makes the caller's stream wait for it.
        self.arrive: Callable[[], None] = lambda: None

    def keep(self) -> None:
        """Make the array this message's own, so that the sender may change its."""
        if not self.owned:
            self.array, self.owned = self.array.copy(), True


def alike(a: Array, b: Array) -> bool:
    """Whether they have the same shape and dtype, and lie both on a GPU or both in host memory."""
    return a.shape == b.shape and a.dtype == b.dtype and on_host(a) == on_host(b)


class Pending:
    """A send or a receive under way."""

    def __init__(
        self,
        transport: Transport,
        ready: Callable[[], bool],
        whom: int,
        call: Call,
        result: Callable[[], Any] = lambda: None,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._transport, self._ready, self._result = transport, ready, result
        self._give_up = give_up
        self._whom, self._call = whom, call
        self.note = ""  # a line to be added to what goes wrong
        self.record: list[Any] | None = None  # of an event, whose end is that of the wait
        self.span: tuple[int, int] | None = None  # its begin and end, where they are declared

    def done(self) -> bool:
        """Whether `wait` would return at once.  Raises: PeerLost, Deadlock if it never will be."""
        self._transport.progress()
        if not self._ready():
            self._transport.check(self._whom, self._call)
        return self._ready()

    def wait(self) -> Any:
        """Wait for the end; a receive returns its `Message`.  Raises: as `Transport.wait`."""
        if not self._ready():
            try:
                self._transport.wait(self._ready, self._whom, self._call)
            except CommError as error:
                self._give_up()
                if self.note:
                    raise type(error)(f"{error}\n{self.note}") from None
                raise
        if self.record is not None:
            self.record[-1] = self.record[-1] or self._transport.now_ns()
        return self._result()


def never_taken(rank: int, src: int, call: Call, did: str) -> CallMismatch:
    """The error of a run in which all returned, but rank never answered src in a collective."""
    return CallMismatch(
        f"rank {rank} has returned, but never took part in rank {src}'s {call}.\n"
        f"  {did}\n"
        "All ranks must make the same calls; usual causes: a call inside `if rank == 0:`, or "
        "different roots."
    )


def gone(rank: int, call: Call, last_calls: Mapping[int, str], unasked: str) -> PeerLost:
    """The error of a wait for ranks that have returned.  unasked: see `Mailbox.unasked`."""
    last = ", ".join(f"rank {r}: {last_calls[r]}" for r in sorted(last_calls))
    return PeerLost(
        f"rank {rank} waits in {call} for a rank that has returned (last calls: {last}){unasked}.\n"
        "Usual cause: a rank left out a call that the others made (an `if rank == 0:`)."
    )


def has_waited(rank: int, waited: float, whom: int, call: Call, last: str, unasked: str) -> str:
    """What a long wait is, in words.  last: the last call of whom."""
    them = f"rank {whom}" if whom != ANY else "any rank"
    return (
        f"rank {rank} has waited {waited:.0f} s for {them} in {call}; "
        f"the last call of {them}: {last}{unasked}"
    )
