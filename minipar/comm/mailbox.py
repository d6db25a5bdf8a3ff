"""A rank's mailbox: messages that have arrived, and receives that wait for one.

Whatever carries the messages, a rank keeps what has come before it was asked for, and what it has
asked for before it came. Within a lane (see `Call.lane`), the first message goes to the first
receive that accepts its sender:

    has come    from 1: a     from 2: b     from 1: c
    asked for   from 1        from any      from 3
    gives       a             b             nothing yet; c stays
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable

import numpy as np

from minipar.array import on_host
from minipar.comm.frame import Call, Header, dtype_of
from minipar.comm.transport import ANY, Message, Pending, Transport, alike, never_taken
from minipar.errors import CallMismatch

Lane = tuple[int, bool]


class Receive:
    """A request for a message, posted before or after that message arrives."""

    def __init__(self, src: int, call: Call, out: np.ndarray | None = None) -> None:
        self.src, self.lane, self.out = src, call.lane, out
        self.message: Message | None = None

    def accepts(self, src: int, incarnation: int = 0) -> bool:
        return self.src in (ANY, src)

    def place_for(self, header: Header) -> np.ndarray | None:
        """`out`, if that payload can be written straight into it, and nobody else's will be."""
        out = self.out
        if out is None or self.src == ANY or not on_host(out) or not out.flags.c_contiguous:
            return None
        like = dtype_of(header.dtype), header.shape
        return out if (out.dtype, out.shape) == like and not header.device else None

    def take(self, message: Message) -> None:
        out = self.out  # on a GPU it is filled by whoever asked for it, in its own stream
        if out is not None and on_host(out) and alike(out, message.array):
            if out is not message.array:
                out[...] = message.array
                message.array = out
        else:
            message.keep()
        message.taken = True
        self.message = message


class Mailbox:
    """Brings arriving messages and posted receives together, both in order, lane by lane."""

    def __init__(self) -> None:
        self._arrived: dict[Lane, deque[Message]] = defaultdict(deque)
        self._posted: dict[Lane, deque[Receive]] = defaultdict(deque)
        self.unasked_for = 0  # how many messages have come before their receive

    def deliver(self, message: Message) -> None:
        lane = message.header.call.lane
        posted = self._posted[lane]
        incarnation = message.incarnation
        receive = next((r for r in posted if r.accepts(message.src, incarnation)), None)
        if receive is None:
            self._arrived[lane].append(message)
            self.unasked_for += 1
        else:
            posted.remove(receive)
            receive.take(message)

    def post(self, receive: Receive) -> None:
        arrived = self._arrived[receive.lane]
        message = next((m for m in arrived if receive.accepts(m.src, m.incarnation)), None)
        if message is None:
            self._posted[receive.lane].append(receive)
        else:
            arrived.remove(message)
            receive.take(message)

    def withdraw(self, receive: Receive) -> None:
        """Nobody waits for this receive any more; the message is for the next one."""
        if receive in self._posted[receive.lane]:
            self._posted[receive.lane].remove(receive)

    def never_taken(self, rank: int, did: Callable[[Call], str]) -> CallMismatch | None:
        """The error if this rank returns now and leaves a message of a collective; None if not.

        did: says what this rank did instead of a call.
        """
        for lane, messages in list(self._arrived.items()):
            if messages and not lane[1]:
                call = messages[0].header.call
                return never_taken(rank, messages[0].src, call, did(call))
        return None

    def expected(self, src: int, call: Call, incarnation: int = 0) -> Receive | None:
        """The receive that the next message from src will fulfil, if one is posted already."""
        return next((r for r in self._posted[call.lane] if r.accepts(src, incarnation)), None)

    def holds(self, src: int, call: Call) -> bool:
        """Whether a message from src (or ANY) waits for a receive in the call's lane."""
        return any(src in (ANY, m.src) for m in list(self._arrived[call.lane]))

    # For `losses`:

    def posted(self) -> list[Receive]:
        """All receives that still wait for their message."""
        return [receive for lane in self._posted.values() for receive in lane]

    def fits(self, receive: Receive) -> bool:
        """Whether a message is there that the receive would take."""
        arrived = list(self._arrived[receive.lane])
        return any(receive.accepts(m.src, m.incarnation) for m in arrived)

    def left(self, lane: Lane, src: int, incarnation: int) -> bool:
        """Whether a message from that incarnation of src waits for a receive."""
        arrived = list(self._arrived[lane])  # another thread may deliver
        return any((m.src, m.incarnation) == (src, incarnation) for m in arrived)

    def contradiction(self, call: Call) -> Message | None:
        """A message to a collective call that proves that its sender has parted ways with us.

        It belongs to our call's number or an earlier one, and yet is not part of our call. So it
        need not wait until the rank that this one happens to wait for has something to say.
        """
        arrived = self._arrived.get((call[0], False))
        if not arrived or call.op in ("send", "recv"):
            return None
        for message in list(arrived):
            theirs = message.header.call
            if theirs.sequence <= call.sequence and theirs[:4] != call[:4]:
                return message
        return None

    def unasked(self, src: int) -> str:
        """What has come from src (or ANY) and nobody asked for, as error messages say it."""
        lanes = list(self._arrived.values())
        left = [m for lane in lanes for m in list(lane) if src in (ANY, m.src)]
        if not left:
            return ""
        first = left[0]
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        return f"; not asked for so far: rank {first.src}'s {first.header.call}{more}"


def pending_receive(
    transport: Transport, mailbox: Mailbox, receive: Receive, call: Call
) -> Pending:
    """Post `receive` and return its Pending; the same for every transport.

    It ends with the message, or with one that shows that the message will not come: whoever
    checks headers (`Link.received`) sees that this is another call's.
    """
    mailbox.post(receive)
    looked = -1  # at so many messages, of which none is a contradiction

    def ready() -> bool:
        nonlocal looked
        if receive.message is not None:
            return True
        there = mailbox.unasked_for
        if there == looked:
            return False
        if mailbox.contradiction(call) is not None:
            return True
        looked = there
        return False

    return Pending(
        transport,
        ready=ready,
        whom=receive.src,
        call=call,
        result=lambda: receive.message or mailbox.contradiction(call),
        give_up=lambda: mailbox.withdraw(receive),
    )
