"""One call of one rank: the primitive that collectives are written over.

`Calls` numbers the calls of a group. A `CallLink` sends and receives on behalf of one of them. What
it sends carries that call in its header; what it receives must belong to the same call of the
sender, or the ranks have parted ways, and both sides are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from minipar import ambient
from minipar.array import Array, describe, is_array, on_host
from minipar.comm.agreed import Native
from minipar.comm.frame import MAX_SIGNATURE, Call, call_site
from minipar.comm.history import History
from minipar.comm.mismatch import mismatch, world_note
from minipar.comm.transport import ANY, Message, Pending, Transport, alike
from minipar.comm.wiring import Circle
from minipar.errors import UsageError
from minipar.events import EVERYBODY, Recorder

IN_MEMORY = ("direct", "flat")  # algorithms that ask for a circle


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
        circle: Circle | None = None,
    ) -> None:
        """ranks: world ranks in group order.  combine: a ufunc, what `add` does."""
        self._transport, self._ranks, self.call = transport, ranks, call
        self._history = history
        self.algorithm, self._combine, self._circle = algorithm, combine, circle
        self._recorder: Recorder | None = ambient.recorder.get()
        self.rank, self.size = ranks.index(transport.rank), len(ranks)
        self.device = False  # whether its arrays lie on a GPU

    def isend(self, array: Array, dst: int) -> Pending:
        array = as_array(self.call.op, array)
        peer = self._ranks[dst]
        record = self._record(peer, array.nbytes)
        pending = self._noted(self._transport.isend(array, peer, self.call))
        pending.record = record
        if record is not None and pending.span is not None:
            record[-2:] = pending.span
        return pending

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
        """into += array, or the call's op instead of +; a backend may charge it."""
        self._combine(into, array, out=into)
        self._transport.added(array.nbytes)

    @property
    def circle(self) -> Circle | None:
        if self._circle is not None:
            watched = self._recorder is not None and self._recorder.logs
            self._circle.enter(self.call, self._note if watched else None, self.compare)
        return self._circle

    def carry_out(self, work: Callable[[], Any], nbytes: int) -> Any:
        """work(), and a record of the whole call."""
        record = self._record(EVERYBODY, nbytes)
        result = work()
        if record is not None:
            record[-1] = self._transport.now_ns()
        if self._circle is not None:
            stranger = self._transport.stranger(self.call)
            if stranger is not None:
                self.received(stranger)
        return result

    def native(self) -> Native:
        """For the collectives of MPI or NCCL; only on their backends."""
        transport: Any = self._transport
        communicator = partial(transport.communicator, self.call, self._ranks)
        return Native(communicator, 0, self._combine, transport.check_native)

    def sender(self, message: Message) -> int:
        """The rank within this group that sent the message."""
        return self._ranks.index(message.src)

    def received(self, message: Message, out: Array | None = None) -> Array:
        """The message's array, once it is known to belong to this call.  Raises: CallMismatch."""
        mine, theirs = self.call, message.header.call
        if self._recorder is not None and self._recorder.tape is not None:
            self._receipt(message.src, message.array.nbytes)
        if (mine.op, theirs.op) != ("recv", "send"):
            self.compare(message.src, theirs)
        message.arrive()
        if out is not None and not on_host(out) and alike(out, message.array):
            out[...] = message.array
            return out
        if out is not None and message.array is not out:
            seen = f"sent {message.header}, expected {describe(out)}"
            src = self.sender(message)
            raise mismatch(mine, theirs, self.rank, src, self._ranks, seen)
        return message.array

    def compare(self, src: int, theirs: Call) -> None:
        """The world rank src is in the call `theirs`; is that this one?  Raises: CallMismatch."""
        mine = self.call
        if mine[:4] == theirs[:4]:
            if mine.site != theirs.site:  # which is legal
                self._history.part(self._transport.rank, mine, src, theirs)
            return
        if mine.sequence > theirs.sequence:  # the ranks parted ways in that earlier call
            mine = self._history.other_than(theirs) or mine
        other = self._ranks.index(src)
        raise mismatch(mine, theirs, self.rank, other, self._ranks, now=self.call)

    def _record(self, peer: int, nbytes: int) -> list[Any] | None:
        """Leave a record of a message to that world rank."""
        if self._recorder is None:
            return None
        group, sequence, op, _, site = self.call
        me, now = self._transport.rank, self._transport.now_ns()
        return self._recorder.take(
            [me, peer, op, sequence, nbytes, site, self.algorithm, group, now, 0]
        )

    def _receipt(self, peer: int, nbytes: int) -> None:
        """Leave a record of a message from that world rank on the tape, if there is one."""
        if self._recorder is not None and self._recorder.tape is not None:
            group, sequence, op, _, site = self.call
            me, now = self._transport.rank, self._transport.now_ns()
            name = "send" if op == "recv" else op  # as its sender calls it
            self._recorder.tape.receipts.append(
                [peer, me, name, sequence, nbytes, site, self.algorithm, group, now, now]
            )

    def _note(self, peer: int, sent: int, got: int) -> None:
        """Of what ranks showed each other in memory: records as of messages."""
        if sent:
            self._record(peer, sent)
        if got:
            self._receipt(peer, got)

    def _noted(self, pending: Pending) -> Pending:
        """With a line for errors of the transport, which knows only ranks of the world."""
        pending.note = world_note(self._ranks)
        return pending


class Calls:
    """Numbers the calls of one rank in one group, and makes the link of each."""

    def __init__(
        self, transport: Transport, ranks: tuple[int, ...], ident: int, history: History
    ) -> None:
        """ranks: world ranks in group order.  ident: the group's number.  history: this rank's."""
        self._transport, self._ranks, self._ident = transport, ranks, ident
        self._history = history
        self._collectives, self.axis = 0, ""
        self.announced = True  # whether an error tells of sends and receives among the last calls
        self.circle = transport.circle(ranks)  # None if they have no memory in common
        self._losses = transport.losses
        if self._losses is not None:
            self._losses.know(ident, ranks)
        self._sent: Counter[object] = Counter()
        self._received: Counter[object] = Counter()

    def send(self, dst: int) -> CallLink:
        """The link of the next send to rank dst."""
        key = dst if self._losses is None else self._key(dst)
        self._sent[key] += 1
        return self._link("send", self._sent[key] - 1, _peer("to", dst, self._ranks[dst]))

    def recv(self, src: int) -> CallLink:
        """The link of the next receive from rank src, which has no number if that is ANY."""
        key = src if self._losses is None or src == ANY else self._key(src)
        self._received[key] += 1
        number = 0 if src == ANY else self._received[key] - 1
        world = src if src == ANY else self._ranks[src]
        return self._link("recv", number, _peer("from", src, world))

    def _key(self, peer: int) -> tuple[int, int]:
        """What calls with that rank are counted under: with each incarnation they begin anew."""
        return peer, self._losses.page(self._ranks[peer])

    def collective(
        self,
        op: str,
        signature: str,
        algorithm: str,
        combine: Callable[..., Array] = np.add,
        device: bool = False,
    ) -> CallLink:
        """The link of the next collective.  signature: what all ranks must agree on.

        device: whether the arrays lie on a GPU, where no other rank can look at them.
        """
        self._collectives += 1
        signature = _full(signature, algorithm, self.axis)
        fields = (self._ident, self._collectives - 1, op, signature, call_site(3))
        call = tuple.__new__(Call, fields)  # half the time of Call(*fields)
        self._transport.announce(call)
        self._history.begin(call)
        if self._losses is not None:
            self._losses.check(call)
        circle = self.circle if algorithm in IN_MEMORY and not device else None
        link = CallLink(
            self._transport, self._ranks, call, self._history, algorithm, combine, circle
        )
        link.device = device
        return link

    def poll(self, src: int) -> bool:
        """Whether something that rank src (or ANY) has sent waits for a receive."""
        call = Call(self._ident, 0, "recv", "", "")
        return self._transport.poll(src if src == ANY else self._ranks[src], call)

    def _link(self, op: str, sequence: int, signature: str) -> CallLink:
        call = Call(self._ident, sequence, op, signature, call_site())
        if self.announced:
            self._transport.announce(call)
        return CallLink(self._transport, self._ranks, call, self._history)


@lru_cache(maxsize=512)
def _full(signature: str, algorithm: str, axis: str) -> str:
    along = f" along {axis}" if axis else ""
    return f"{signature} by {algorithm}{along}".lstrip()[:MAX_SIGNATURE]


@lru_cache(maxsize=512)
def _peer(which: str, rank: int, world: int) -> str:
    if rank == ANY:
        return f"{which} any rank"
    return f"{which} {rank}" if rank == world else f"{which} {world} of the world"


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


def as_array(op: str, x: Any) -> Array:
    """x, or the array of a number or list.  Raises: UsageError for anything else."""
    if type(x) is np.ndarray:
        dtype = x.dtype
        if dtype.hasobject:
            raise UsageError(f"{op}: an array of dtype {dtype} cannot be sent; convert it first")
        if dtype.isnative:
            return x
    if is_array(x):
        return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    if isinstance(x, np.generic | int | float | bool | list | tuple):
        return np.asarray(x)
    hint = "; pass its .data" if hasattr(x, "data") else ""
    raise UsageError(f"{op} takes arrays, not {type(x).__name__}{hint}")
