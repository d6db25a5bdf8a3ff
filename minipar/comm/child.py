"""One rank's process as its launcher holds it: a control socket, two streams, signals.

Nothing here ever waits. What is to be said goes into a buffer that is sent as the socket takes it;
what is heard is put together from whatever pieces come; so one rank that is stopped, or floods its
output, cannot make the launcher deaf to the others.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import socket
import subprocess
import time
from typing import IO, Any

from minipar.comm.control import decode, encode
from minipar.comm.environment import child_environment, python_command

READ_BYTES = 1 << 16  # at once, so that the other ranks get their turn
LAST_READS = 64  # for each stream at the end: 4 MB, more than a pipe holds


class Child:
    """The process of rank `number`, in a session of its own: Ctrl-C does not reach it."""

    def __init__(self, number: int, ranks: int, memory: tuple[int, int], *more: int) -> None:
        """ranks: on this host.  memory: the descriptors of segment and heap.  more: descriptors
        that it inherits, too.
        """
        self.control, theirs = socket.socketpair()
        with theirs:
            descriptors = (theirs.fileno(), *memory)
            try:
                self.process = subprocess.Popen(
                    python_command("minipar.comm.worker", *map(str, descriptors)),
                    env=child_environment(ranks),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(*descriptors, *more),
                    start_new_session=True,
                )
            except OSError:
                self.control.close()
                raise
        self.number = number
        self.result: Any = None
        self.ended_at: float | None = None  # when it returned or failed; no more is expected
        self.started = self.exited = self.failed = self.hung_up = False
        self.neighbours: Any = None  # what it has to know of ranks of other hosts
        self.failure: Any = None  # with which it is lost, where that is reported
        self.control.setblocking(False)
        self._unsent, self._unread = bytearray(), bytearray()
        self.streams: dict[str, IO[bytes]] = {}
        for name in ("stdout", "stderr"):
            self.streams[name] = getattr(self.process, name)
            os.set_blocking(self.streams[name].fileno(), False)
        new = codecs.getincrementaldecoder("utf-8")
        self._decoders = {name: new("replace") for name in self.streams}

    @property
    def ended(self) -> bool:
        return self.ended_at is not None

    def end(self) -> None:
        self.ended_at = self.ended_at or time.monotonic()

    # -- control ------------------------------------------------------------------------------

    def say(self, *message: Any) -> None:
        """Send a message, now or as soon as the socket takes it."""
        self._unsent += encode(*message)
        self.push()

    def push(self) -> bool:
        """Send more of what is unsent; whether anything is left."""
        with contextlib.suppress(BlockingIOError):
            try:
                while self._unsent and not self.hung_up:
                    del self._unsent[: self.control.send(self._unsent)]
            except ConnectionError:
                self.hung_up = True
        return bool(self._unsent) and not self.hung_up

    def hear(self) -> list[tuple[Any, ...]]:
        """The messages that are complete by now; `hung_up` is set if no more can come."""
        try:
            while raw := self.control.recv(READ_BYTES):
                self._unread += raw
            self.hung_up = True
        except BlockingIOError:
            pass
        except ConnectionError:
            self.hung_up = True
        return decode(self._unread)

    # -- output -------------------------------------------------------------------------------

    def printed(self, name: str) -> str | None:
        """Some of what it has printed since; None at the end of that stream."""
        try:
            raw = os.read(self.streams[name].fileno(), READ_BYTES)
        except BlockingIOError:
            return ""
        return self._decoders[name].decode(raw, final=not raw) or (None if not raw else "")

    def last_words(self, name: str) -> str:
        """What is still in a stream of a process that has exited, up to a limit."""
        pieces: list[str] = []
        while len(pieces) < LAST_READS and (piece := self.printed(name)):
            pieces.append(piece)
        return "".join(pieces)

    # -- the end ------------------------------------------------------------------------------

    def send_signal(self, number: int) -> None:
        """To the process, and to those that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def how_it_ended(self) -> str:
        """In words; after `exited`."""
        status = self.process.returncode
        if status >= 0:
            return f"ended with exit code {status} and without a word"
        try:
            return f"was killed by signal {-status} ({signal.Signals(-status).name})"
        except ValueError:
            return f"was killed by signal {-status}"

    def close(self) -> None:
        self.control.close()
        for stream in self.streams.values():
            stream.close()
