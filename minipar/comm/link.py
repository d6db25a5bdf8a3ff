"""One call of one rank: the primitive that collectives are written over.

`Calls` numbers the calls of a group. A `CallLink` sends and receives on behalf of one of them. What
it sends carries that call in its header; what it receives must belong to the same call of the
sender, or the ranks have parted ways, and both sides are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from minipar import ambient
from minipar.array import Array, describe, is_array
from minipar.comm.frame import MAX_SIGNATURE, Call, call_site
from minipar.comm.history import History
from minipar.comm.transport import ANY, Message, Pending, Transport
from minipar.errors import CallMismatch, UsageError
from minipar.events import Event


class CallLink:
    """One call of one rank: sends and receives that carry the call's name and number."""

    def __init__(
        self,
        transport: Transport,
        ranks: tuple[int, ...],
        call: Call,
        history: History,
        algorithm: str = "",
        combine: Callable[..., Array] = np.add,
    ) -> None:
        """ranks: world ranks in group order.  combine: a ufunc, what `add` does."""
        self._transport, self._ranks, self.call = transport, ranks, call
        self._history = history
        self._algorithm, self._combine = algorithm, combine
        self.rank, self.size = ranks.index(transport.rank), len(ranks)

    def isend(self, array: Array, dst: int) -> Pending:
        array = as_array(self.call.op, array)
        peer = self._ranks[dst]
        recorder = ambient.recorder.get()
        if recorder is not None:
            recorder.append(self._event(peer, array))
        return self._noted(self._transport.isend(array, peer, self.call))

    def send(self, array: Array, dst: int) -> None:
        self.isend(array, dst).wait()

    def recv(self, src: int) -> Array:
        return self.received(self.irecv(src).wait())

    def irecv(self, src: int, out: Array | None = None) -> Pending:
        peer = src if src == ANY else self._ranks[src]
        return self._noted(self._transport.irecv(peer, self.call, out))

    def sendrecv(self, array: Array, dst: int, src: int) -> Array:
        sending = self.isend(array, dst)
        incoming = self.recv(src)
        sending.wait()
        return incoming

    def add(self, into: Array, array: Array) -> None:
        """into += array, or the call's op instead of +; here, so that a backend can charge it."""
        self._combine(into, array, out=into)

    def sender(self, message: Message) -> int:
        """The rank within this group that sent the message."""
        return self._ranks.index(message.src)

    def received(self, message: Message, out: Array | None = None) -> Array:
        """The message's array, once it is known to belong to this call.  Raises: CallMismatch."""
        mine, theirs = self.call, message.header.call
        if mine.op == "recv" and theirs.op == "send":
            if out is None or message.array is out:
                return message.array
            raise self._mismatch(message, mine, str(message.header), describe(out))
        if mine[:4] == theirs[:4]:
            if mine.site != theirs.site:  # which is legal
                self._history.part(self._transport.rank, mine, message.src, theirs)
            return message.array
        if mine.sequence > theirs.sequence:  # the ranks parted ways in that earlier call
            mine = self._history.other_than(theirs) or mine
        if mine[:3] == theirs[:3]:
            raise self._mismatch(message, mine, theirs.signature, mine.signature)
        seen, expected = (f"{c.op} #{c.sequence} {c.signature}".rstrip() for c in (theirs, mine))
        raise self._mismatch(message, mine, seen, expected)

    def _mismatch(self, message: Message, mine: Call, seen: str, expected: str) -> CallMismatch:
        in_world = world_suffix(self._ranks, self.rank)
        src, call = self.sender(message), self.call
        sender = f"rank {src}{world_suffix(self._ranks, src)}"
        return CallMismatch(
            f"rank {self.rank}/{self.size}{in_world}, {call.op} #{call.sequence}: "
            f"{sender} sent {seen}, expected {expected}.\n"
            f"  rank {self.rank}{in_world} at {mine.site}\n"
            f"  {sender} at {message.header.call.site}\n"
            "All ranks must make the same calls in the same order, with the same shapes and "
            "dtypes; usual causes: a call inside `if rank == 0:`, or uneven batches."
        )

    def _event(self, peer: int, array: Array) -> Event:
        call, me = self.call, self._transport.rank
        return Event(
            me, peer, call.op, call.sequence, array.nbytes, call.site, self._algorithm, call.group
        )

    def _noted(self, pending: Pending) -> Pending:
        """With a line for errors of the transport, which knows only ranks of the world."""
        if self._ranks != tuple(range(self.size)):
            here = ", ".join(map(str, self._ranks))
            pending.note = (
                f"These are ranks of the world; ranks 0 to {self.size - 1} of this group are {here}"
            )
        return pending


class Calls:
    """Numbers the calls of one rank in one group, and makes the link of each."""

    def __init__(
        self, transport: Transport, ranks: tuple[int, ...], ident: int, history: History
    ) -> None:
        """ranks: world ranks in group order.  ident: the group's number.  history: this rank's."""
        self._transport, self._ranks, self._ident = transport, ranks, ident
        self._history = history
        self._collectives = 0
        self._sent: Counter[int] = Counter()
        self._received: Counter[int] = Counter()

    def send(self, dst: int) -> CallLink:
        """The link of the next send to rank dst."""
        self._sent[dst] += 1
        return self._link("send", self._sent[dst] - 1)

    def recv(self, src: int) -> CallLink:
        """The link of the next receive from rank src, which has no number if that is ANY."""
        self._received[src] += 1
        return self._link("recv", 0 if src == ANY else self._received[src] - 1)

    def collective(
        self, op: str, signature: str, algorithm: str, combine: Callable[..., Array] = np.add
    ) -> CallLink:
        """The link of the next collective.  signature: what all ranks must agree on."""
        self._collectives += 1
        signature = f"{signature} by {algorithm}".lstrip()[:MAX_SIGNATURE]
        link = self._link(op, self._collectives - 1, signature, algorithm, combine)
        self._history.begin(link.call)
        return link

    def poll(self, src: int) -> bool:
        """Whether something that rank src (or ANY) has sent waits for a receive."""
        call = Call(self._ident, 0, "recv", "", "")
        return self._transport.poll(src if src == ANY else self._ranks[src], call)

    def _link(self, op: str, sequence: int, signature: str = "", *more: Any) -> CallLink:
        call = Call(self._ident, sequence, op, signature, call_site())
        self._transport.announce(call)
        return CallLink(self._transport, self._ranks, call, self._history, *more)


class Receiving:
    """A receive under way."""

    def __init__(self, link: CallLink, src: int, out: Array | None) -> None:
        self._link, self._src, self._out = link, src, out
        self._pending = link.irecv(src, out)

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        return self._pending.done()

    def wait(self) -> Any:
        """The array (of `recv`), or (src, array) for ANY."""
        message = self._pending.wait()
        array = self._link.received(message, self._out)
        return (self._link.sender(message), array) if self._src == ANY else array


def world_suffix(ranks: tuple[int, ...], rank: int) -> str:
    """What messages say after a rank of a group that has another number in the world."""
    return "" if ranks[rank] == rank else f" (world rank {ranks[rank]})"


def as_array(op: str, x: Any) -> Array:
    """x, or the array of a number or list.  Raises: UsageError for anything else."""
    if is_array(x):
        return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    if isinstance(x, np.generic | int | float | bool | list | tuple):
        return np.asarray(x)
    raise UsageError(f"{op} takes arrays, not {type(x).__name__}; pass a Tensor's .data")
