"""The connection of this host's launcher to one other launcher, after both have proved themselves.

Nothing here waits. Each side says something at least every BEAT_S, so that a side from which
nothing comes for SILENT_S is lost: its launcher was stopped or killed, or the link is cut.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from minipar.comm.hosts.message import decode, encode
from minipar.comm.hosts.tcp import guard
from minipar.errors import CommError

BEAT_S = 0.5
SILENT_S = 5.0
READ_BYTES = 1 << 16
ENDED = "its launcher has ended without a word"


class NodeLink:
    """One other launcher."""

    def __init__(self, sock: socket.socket, node: int, address: str) -> None:
        self.socket, self.node, self.address = sock, node, address
        self.lost: str | None = None  # why, in words
        self._unsent, self._unread = bytearray(), bytearray()
        self._cut = ""  # why nothing can be sent any more; what has come before is still to be read
        self._kept: list[tuple[Any, ...]] = []
        self._heard_at = self._said_at = time.monotonic()
        guard(sock)
        sock.setblocking(False)

    def say(self, *message: Any) -> None:
        """Send a message, now or as soon as the socket takes it."""
        self._unsent += encode(*message)
        self.push()

    def push(self) -> None:
        """Send more of what is unsent."""
        try:
            while self._unsent and self.lost is None:
                del self._unsent[: self.socket.send(self._unsent)]
                self._said_at = time.monotonic()
        except BlockingIOError:
            pass
        except OSError as error:
            self._cut = _why(error)
            self._unsent.clear()

    def hear(self) -> list[tuple[Any, ...]]:
        """The messages that have come; `lost` is set if no more can."""
        kept, self._kept = self._kept, []
        if self.lost is not None:
            return kept
        self._beat()
        try:
            while raw := self.socket.recv(READ_BYTES):
                self._unread += raw
                self._heard_at = time.monotonic()
            self.lost = self._cut or ENDED
        except BlockingIOError:
            self.lost = self._cut or self.lost
        except OSError as error:
            self.lost = self._cut or _why(error)
        try:
            return kept + [m for m in decode(self._unread) if m != ("beat",)]
        except CommError as error:
            self.lost = f"it {error}"
            return kept

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._said_at > BEAT_S and not self._unsent:
            self.say("beat")
        self.push()
        silent_s = now - self._heard_at
        if silent_s > SILENT_S:
            self.lost = f"nothing was heard of it for {silent_s:.0f} s"

    def wait_for(self, kinds: tuple[str, ...], deadline: float) -> tuple[Any, ...]:
        """The next message, which must be of one of these kinds.

        Raises: CommError if it is not, or the other side is gone; TimeoutError.
        """
        while True:
            messages = self.hear()
            if messages:
                if messages[0][0] not in kinds:
                    raise CommError(f"it said {messages[0][0]!r} where {kinds[0]!r} was due")
                self._kept = messages[1:]
                return messages[0]
            if self.lost is not None:
                raise CommError(self.lost)
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.01)

    def close(self, patience_s: float = 0.5) -> None:
        """Send what is left and wait for the other side's end, as far as that goes quickly: a
        socket that is closed before all of it was read takes back what it has not yet delivered.
        """
        deadline = time.monotonic() + patience_s
        while self._unsent and self.lost is None and time.monotonic() < deadline:
            self.push()
            time.sleep(0.001)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(patience_s)
            while time.monotonic() < deadline and self.socket.recv(READ_BYTES):
                pass
        self.socket.close()


def _why(error: OSError) -> str:
    return ENDED if isinstance(error, ConnectionError) else error.strerror or str(error)
