"""A stream of bytes over TCP, to and from one rank of another host.

It never blocks, and it never says that a connection is well which is not. When the stream ends, one
of two things has happened: the other rank has returned, or it or the network has failed. Its
launcher knows which, and says so on another way (`note_finished`, or a failure that ends every
wait). Only if no word comes, the end of the stream itself is the error.
"""

from __future__ import annotations

import contextlib
import socket
import time

from minipar.errors import PeerLost

WORD_S = 3.0  # in which the other rank's launcher should have said why a stream has ended
UNACKNOWLEDGED_MS = 10_000  # after which the kernel gives a connection up
KEEPALIVE = (("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))  # seconds, times


class TcpStream:
    """Both directions of the connection to one rank: a Writer and a Reader."""

    def __init__(self, sock: socket.socket, rank: int, address: str) -> None:
        self._sock, self._rank, self._address = sock, rank, address
        self._ended_at: float | None = None
        self._why = "it was closed"
        self._writable = True
        self._finished = False
        guard(sock)
        sock.setblocking(False)

    @property
    def ended(self) -> bool:
        """Whether nothing more can come."""
        return self._ended_at is not None

    def write_some(self, source: memoryview) -> int:
        """Send a first part of `source`; how many bytes (0: there is no room now)."""
        if not self._writable:
            return 0
        try:
            return self._sock.send(source)
        except BlockingIOError:
            return 0
        except OSError as error:  # reading comes to its end likewise, and says why
            self._writable, self._why = False, error.strerror or str(error)
            return 0

    def read_some(self, target: memoryview) -> int:
        """Fill a first part of `target` with what has come; how many bytes (0: nothing now)."""
        if self.ended or not target:
            return 0
        try:
            n = self._sock.recv_into(target)
        except BlockingIOError:
            return 0
        except OSError as error:
            n, self._why = 0, error.strerror or str(error)
        if not n:
            self._ended_at = time.monotonic()
        return n

    def readable(self) -> bool:
        """Whether something may still come.  Raises: PeerLost, if the end is left unexplained."""
        if self._ended_at is None:
            return True
        if not self._finished and time.monotonic() - self._ended_at > WORD_S:
            raise PeerLost(
                f"the connection to rank {self._rank} at {self._address} is lost: {self._why}.\n"
                "Usual causes: the network between the hosts, or a host that is down."
            )
        return False

    def clear(self) -> None:
        """That rank is lost: this stream has ended."""
        self._writable, self._ended_at = False, self._ended_at or time.monotonic()
        self._finished = True
        self._sock.close()

    def note_finished(self) -> None:
        """That rank has returned, so the end of its stream is no surprise."""
        self._finished = True

    def finish(self) -> None:
        """Nothing more will be sent: whoever reads finds the end behind the last message."""
        self._writable = False
        with contextlib.suppress(OSError):  # the other side has gone
            self._sock.shutdown(socket.SHUT_WR)


def guard(sock: socket.socket) -> None:
    """Send at once what is small, and notice when the other side cannot be reached any more."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*KEEPALIVE, ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS)):
        if hasattr(socket, name):  # not all of them on macOS
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
