"""What ranks tell each other about themselves where no launcher of ours does: under MPI.

    FAILED     "rank 1 raised ValueError: ..."      with the job's exit code; all others stop
    LOST       "rank 1 raised ValueError: ..."      it takes no part any more; the others go on
    STOPPED    "1\n...\nrecv #0 at train.py:5"       the answer to FAILED: this rank has stopped;
                                                    whom it waited for, and its last calls
    FINISHED   "barrier #4 at train.py:9"           it has returned; this was its last call
    ASK                                             what are you doing?
    DOING      "all_reduce #3 at train.py:7"        the answer to ASK

A notice is a fixed struct and a text of bounded length. It travels between messages, on the same
lane, so a FINISHED or LOST comes after all that its sender has sent.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from minipar.errors import CommError

MAGIC = b"mpn1"
LAYOUT = struct.Struct("<4sBB2x")
MAX_TEXT = 2000  # bytes


class Kind(IntEnum):
    """What a notice is about, as above."""

    FAILED = 0
    STOPPED = 1
    FINISHED = 2
    ASK = 3
    DOING = 4
    LOST = 5


class Notice(NamedTuple):
    """What a rank says of itself."""

    kind: Kind
    text: str = ""
    code: int = 0  # of FAILED: the exit code of the job


def is_notice(raw: bytes | bytearray) -> bool:
    """Whether that is a notice, and not the header of a message."""
    return raw[: len(MAGIC)] == MAGIC


def pack(notice: Notice) -> bytes:
    """notice as bytes; a text that is too long is cut."""
    head = LAYOUT.pack(MAGIC, notice.kind, notice.code & 0xFF)
    return head + notice.text.encode(errors="replace")[:MAX_TEXT]


def unpack(raw: bytes | bytearray) -> Notice:
    """The notice in `raw`.  Raises: CommError for bytes that `pack` did not make."""
    if not LAYOUT.size <= len(raw) <= LAYOUT.size + MAX_TEXT:
        raise CommError(f"a notice of {len(raw)} bytes is none of minipar's")
    magic, kind, code = LAYOUT.unpack_from(raw)
    if magic != MAGIC or kind not in Kind.__members__.values():
        raise CommError("a notice of an unknown kind is none of minipar's")
    return Notice(Kind(kind), bytes(raw[LAYOUT.size :]).decode(errors="replace"), code)
