"""Accepts connections, and lets in who knows the secret.

A stranger may connect and say nothing, or anything, or a hundred times. So nobody is waited for:
each guest has a few seconds to say CLAIM_BYTES, all of them at the same time, and if there are too
many, the one who has been silent for longest has to go.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import time

from minipar.comm.hosts.secret import CLAIM_BYTES, admitted, challenge

PATIENCE_S = 5.0
MOST_GUESTS = 64
PEER = struct.Struct("3i")  # pid, uid, gid, as SO_PEERCRED has them


class Guest:
    """A connection that has not yet proved anything."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.challenged, self.said = sock, challenge(), b""
        self.since = time.monotonic()
        sock.setblocking(False)
        sock.send(self.challenged)  # fits into any socket's buffer, as does the answer

    def listen(self) -> bool:
        """Take in what it says; whether it has said all that it has to."""
        try:
            piece = self.sock.recv(CLAIM_BYTES - len(self.said))
        except BlockingIOError:
            return False
        if not piece:
            raise ConnectionError("it has gone")
        self.said += piece
        return len(self.said) == CLAIM_BYTES


class Doorkeeper:
    """Who may come in at a listening socket."""

    def __init__(self, listener: socket.socket, secret: bytes, purpose: bytes) -> None:
        self._listener, self._secret, self._purpose = listener, secret, purpose
        self._guests: list[Guest] = []
        self._selector = selectors.DefaultSelector()
        self.turned_away = 0
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, None)

    def admit(self, wait_s: float) -> list[tuple[int, socket.socket]]:
        """Those who have proved within this time that they may: their number and connection."""
        admitted_now = []
        for key, _ in self._selector.select(wait_s):
            if key.data is None:
                self._open()
            elif key.data in self._guests and (number := self._hear(key.data)) is not None:
                admitted_now.append((number, key.data.sock))
        for guest in list(self._guests):
            if time.monotonic() - guest.since > PATIENCE_S:
                self._turn_away(guest)
        return admitted_now

    def _open(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it has gone again; or there are no descriptors left
            for guest in self._guests[:1]:
                self._turn_away(guest)
            return
        if not may_be_trusted(sock):
            sock.close()
            self.turned_away += 1
            return
        try:
            guest = Guest(sock)
        except OSError:
            sock.close()
            return
        self._guests.append(guest)
        self._selector.register(sock, selectors.EVENT_READ, guest)
        if len(self._guests) > MOST_GUESTS:
            self._turn_away(self._guests[0])

    def _hear(self, guest: Guest) -> int | None:
        try:
            if not guest.listen():
                return None
            known = admitted(self._secret, self._purpose, guest.challenged, guest.said)
            if known is None:
                raise ConnectionError("a stranger")
            guest.sock.send(known[1])
        except OSError:
            self._turn_away(guest)
            return None
        self._forget(guest)
        return known[0]

    def _turn_away(self, guest: Guest) -> None:
        self._forget(guest)
        guest.sock.close()
        self.turned_away += 1

    def _forget(self, guest: Guest) -> None:
        self._guests.remove(guest)
        self._selector.unregister(guest.sock)

    def close(self) -> None:
        """Let nobody in any more."""
        for guest in self._guests:
            guest.sock.close()
        self._selector.close()
        self._listener.close()


def may_be_trusted(sock: socket.socket) -> bool:
    """Whether the other end of a Unix socket is the same user's; of TCP the proof alone tells."""
    if sock.family != getattr(socket, "AF_UNIX", None):
        return True
    with contextlib.suppress(OSError):
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
        return bool(PEER.unpack(raw)[1] == os.getuid())
    return False
