"""One call of one rank: the primitive that collectives are written over.

A `Link` sends and receives on behalf of one numbered call. What it sends carries that call in its
header; what it receives must belong to the same call of the sender, or the ranks have parted ways,
and both sides are named.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minipar import ambient
from minipar.array import Array, describe, is_array
from minipar.comm.frame import Call
from minipar.comm.transport import ANY, Message, Pending, Transport
from minipar.errors import CallMismatch, UsageError
from minipar.events import Event


class Link:
    """One call of one rank: sends and receives that carry the call's name and number."""

    def __init__(self, transport: Transport, ranks: tuple[int, ...], rank: int, call: Call) -> None:
        self._transport, self._ranks, self._call = transport, ranks, call
        self.rank, self.size = rank, len(ranks)

    def isend(self, array: Array, dst: int) -> Pending:
        array = as_array(self._call.op, array)
        call, peer = self._call, self._ranks[dst]
        recorder = ambient.recorder.get()
        if recorder is not None:
            me = self._ranks[self.rank]
            recorder.append(Event(me, peer, call.op, call.sequence, array.nbytes, call.site))
        return self._transport.isend(array, peer, call)

    def send(self, array: Array, dst: int) -> None:
        self.isend(array, dst).wait()

    def recv(self, src: int, out: Array | None = None) -> Array:
        return self.received(self.irecv(src, out).wait(), out)

    def irecv(self, src: int, out: Array | None = None) -> Pending:
        peer = src if src == ANY else self._ranks[src]
        return self._transport.irecv(peer, self._call, out)

    def sendrecv(self, array: Array, dst: int, src: int) -> Array:
        sending = self.isend(array, dst)
        incoming = self.recv(src)
        sending.wait()
        return incoming

    def add(self, into: Array, array: Array) -> None:
        """into += array; a place of its own, so that a backend can charge for it."""
        into += array

    def sender(self, message: Message) -> int:
        """The rank within this group that sent the message."""
        return self._ranks.index(message.src)

    def received(self, message: Message, out: Array | None = None) -> Array:
        """The message's array, once it is known to belong to this call.  Raises: CallMismatch."""
        mine, theirs = self._call, message.header.call
        sender = self.sender(message)
        if mine.op == "recv" and theirs.op == "send":
            if out is None or message.array is out:
                return message.array
            seen, expected = str(message.header), describe(out)
        elif mine[:4] == theirs[:4]:  # all but the site, which may differ
            return message.array
        elif mine[:3] == theirs[:3]:
            seen, expected = theirs.signature, mine.signature
        else:
            seen = f"{theirs.op} #{theirs.sequence} {theirs.signature}".rstrip()
            expected = f"{mine.op} #{mine.sequence} {mine.signature}".rstrip()
        raise CallMismatch(
            f"rank {self.rank}/{self.size}, {mine.op} #{mine.sequence}: "
            f"rank {sender} sent {seen}, expected {expected}.\n"
            f"  rank {self.rank} at {mine.site}\n  rank {sender} at {theirs.site}\n"
            "All ranks must make the same calls in the same order, with the same shapes and "
            "dtypes; usual causes: a call inside `if rank == 0:`, or uneven batches."
        )


def as_array(op: str, x: Any) -> Array:
    """x, or the array of a number or list.  Raises: UsageError for anything else."""
    if is_array(x):
        return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    if isinstance(x, np.generic | int | float | bool | list | tuple):
        return np.asarray(x)
    raise UsageError(f"{op} takes arrays, not {type(x).__name__}; pass a Tensor's .data")
