"""From one rank to another, for messages: a communicator of the two, and a stream of its own.

    rank a      send 0 | send 1 | ...        NCCL pairs the n-th send with the n-th receive, and a
    rank b      recv 0 | recv 1 | ...        send waits in its stream until its receive is there

There is one for each direction, so a send that waits holds up nothing but the sends behind it:
ranks that all send first and then receive get through, in a circle, too. A message's header comes
through host memory, and whoever reads it begins the receive at once, so both sides have one order.

To make a communicator takes as long as the other side takes to come, so a thread does that; what is
to be sent meanwhile waits in a list.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from minipar.array import Array
from minipar.comm.frame import Call
from minipar.comm.nccl.desk import Desk
from minipar.comm.nccl.library import UINT8
from minipar.errors import CommError

SENDER, RECEIVER = 0, 1  # ranks in the communicator
CALL = Call(0, 0, "connecting", "", "its first message")


class Transfer:
    """A message that is put into the connection's stream as soon as there is one."""

    def __init__(self, array: Array, fence: Any, call: Call) -> None:
        """array: contiguous.  fence: an event, after which it may be read, or overwritten."""
        self.array, self.fence, self.call = array, fence, call
        self.end: Any = None  # an event, once it is under way

    def under_way(self) -> bool:
        return self.end is not None


class Connection:
    """This rank's end: it only sends, or only receives."""

    def __init__(self, desk: Desk, side: int, pair: tuple[int, int], ident: bytes) -> None:
        """side: SENDER or RECEIVER.  pair: world ranks, of the sender and of the receiver."""
        self._desk, self._side, self._pair, self._ident = desk, side, pair, ident
        self._other = pair[1 - side]
        self._waiting: list[Transfer] = []
        self._lock = threading.Lock()
        self._handle: Any = None
        self._stream: Any = None
        name = f"connection {pair[0]} -> {pair[1]}"
        threading.Thread(target=self._connect, daemon=True, name=name).start()

    def begin(self, array: Array, fence: Any, call: Call) -> Transfer:
        """Send it, or receive into it, in the order of these calls.  As for `Transfer`."""
        transfer = Transfer(array, fence, call)
        with self._lock:
            if self._stream is None:
                self._waiting.append(transfer)
            else:
                self._launch(transfer)
        return transfer

    def _launch(self, transfer: Transfer) -> None:
        import cupy

        stream, array = self._stream, transfer.array
        stream.wait_event(transfer.fence)
        if array.nbytes:
            method = self._handle.send if self._side == SENDER else self._handle.recv
            there = 1 - self._side
            place = array.data.ptr, array.nbytes, UINT8, there, stream.ptr
            self._desk.do(transfer.call, method, *place)
        end = cupy.cuda.Event(disable_timing=True)
        end.record(stream)
        self._desk.watch.add(transfer.call, self._other, end, array)
        transfer.end = end

    def _connect(self) -> None:
        """Make the communicator, and send a byte: NCCL opens connections with the first message."""
        import cupy

        desk, key = self._desk, (1, *self._pair)
        try:
            handle = desk.join(key, 2, self._ident, self._side, CALL, self._other)
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                byte = cupy.empty(1, "uint8")
            method: Callable[..., None] = handle.send if self._side == SENDER else handle.recv
            with desk.watch.blocking(CALL, self._other):
                method(byte.data.ptr, 1, UINT8, 1 - self._side, stream.ptr)
                stream.synchronize()
            with self._lock:
                self._handle, self._stream = handle, stream
                for transfer in self._waiting:
                    self._launch(transfer)
                self._waiting.clear()
        except Exception as error:  # raised again by whatever waits for this connection
            rank = desk.host.rank
            failure = error if isinstance(error, CommError) else CommError(f"rank {rank}: {error}")
            desk.host.note_failure(failure)
