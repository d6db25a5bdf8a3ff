"""Messages between the launcher and its own ranks, over a socket that each rank inherits.

The socket is one end of a socketpair: it has no address, so nobody but parent and child can ever
hold an end of it, and its end-of-file tells either side that the other is gone. Because of that,
and only here, objects are pickled.
"""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

MAIN_ALIAS = "__minipar_main__"  # what a launching script is called where ranks import it
LENGTH = struct.Struct("<Q")


def encode(*message: Any) -> bytes:
    """A tuple as bytes that say their length.  Raises: what pickling it raises."""
    raw = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(raw)) + raw


def decode(buffer: bytearray) -> list[tuple[Any, ...]]:
    """The complete messages at the beginning of the buffer, taken out of it."""
    messages = []
    while len(buffer) >= LENGTH.size:
        end = LENGTH.size + LENGTH.unpack_from(buffer)[0]
        if len(buffer) < end:
            break
        messages.append(pickle.loads(buffer[LENGTH.size : end]))
        del buffer[:end]
    return messages


def send_message(sock: socket.socket, *message: Any) -> bool:
    """Send a tuple; False if the other side is gone.  Raises: what pickling it raises."""
    raw = encode(*message)
    try:
        sock.sendall(raw)
    except OSError:
        return False
    return True


def receive_message(sock: socket.socket) -> tuple[Any, ...] | None:
    """The next tuple; None once the other side is gone."""
    length = _receive_exactly(sock, LENGTH.size)
    raw = length and _receive_exactly(sock, LENGTH.unpack(length)[0])
    return pickle.loads(raw) if raw else None


def _receive_exactly(sock: socket.socket, n: int) -> bytearray | None:
    raw = bytearray(n)
    view = memoryview(raw)
    while view:
        try:
            got = sock.recv_into(view)
        except OSError:
            return None
        if not got:
            return None
        view = view[got:]
    return raw
