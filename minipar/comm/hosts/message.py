"""What launchers on different hosts say to each other: short, typed, and nothing else is let in.

    length (4 bytes)   ["failed", 3, "rank 3 raised ValueError: ...", 1]

A message is a JSON list: its kind, then as many values as `KINDS` lists for that kind, each of
which has to pass its check. So reading one builds a few numbers and texts, of bounded size, or
raises CommError. Array data never comes this way; see `frame`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from minipar.errors import CommError

LENGTH = struct.Struct("<I")
MAX_BYTES = 1 << 20  # the largest is the welcome, some 30 bytes for each rank
MAX_RANKS = 1 << 14
MAX_TEXT = 16_384
Check = Callable[[Any], bool]


def number(highest: int) -> Check:
    """0 to highest; True is no number."""
    return lambda value: type(value) is int and 0 <= value <= highest


def text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def many(check: Check) -> Check:
    return lambda value: (
        isinstance(value, list) and len(value) <= MAX_RANKS and all(map(check, value))
    )


def address(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and text(value[0]) and port(value[1])


def flag(value: Any) -> bool:
    return isinstance(value, bool)


port, rank, code = number(65535), number(MAX_RANKS), number(255)

KINDS: MappingProxyType[str, tuple[Check, ...]] = MappingProxyType(
    {
        "hello": (text, rank, many(port)),  # version, nodes, a port for each rank
        "refused": (text,),
        "welcome": (many(rank), many(address), text),  # ranks of each node, addresses, nonce
        "beat": (),
        "notice": (rank, text),  # what that rank is doing: its notice on the board, in base 64
        "finished": (rank,),
        "failed": (rank, text, code),  # its summary, and the job's exit code
        "fates": (many(rank), many(text)),  # of a failed job: what has become of these ranks
        "reported": (rank, text, flag),  # lost, why, and whether it may be started again
        "joined": (rank, port),  # it is about to be; where it can be called
        "job": (text,),  # what all are to do, where only node 0 knows it
        "interrupt": (rank,),  # the node where Ctrl-C was pressed
        "done": (),
    }
)


def encode(*message: Any) -> bytes:
    """A message as bytes that say their length."""
    raw = json.dumps(message).encode()
    assert len(raw) <= MAX_BYTES, message[0]
    return LENGTH.pack(len(raw)) + raw


def decode(buffer: bytearray) -> list[tuple[Any, ...]]:
    """The complete messages at the beginning of the buffer, taken out of it.  Raises: CommError."""
    messages = []
    while len(buffer) >= LENGTH.size:
        size = LENGTH.unpack_from(buffer)[0]
        if size > MAX_BYTES:
            raise CommError(f"announced a message of {size} bytes; {MAX_BYTES} are the limit")
        end = LENGTH.size + size
        if len(buffer) < end:
            break
        messages.append(_checked(bytes(buffer[LENGTH.size : end])))
        del buffer[:end]
    return messages


def _checked(raw: bytes) -> tuple[Any, ...]:
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, list) and message and isinstance(message[0], str):
        kind, *values = message
        checks = KINDS.get(kind)
        if checks is not None and len(checks) == len(values) and all(map(_passes, checks, values)):
            return (kind, *values)
    raise CommError(f"sent what is not a launcher's message: {raw[:60]!r}")


def _passes(check: Check, value: Any) -> bool:
    return check(value)
