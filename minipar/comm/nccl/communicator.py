"""NCCL's communicator of a group, for its own collectives: all go through one stream of the rank.

One stream for the collectives of all groups: they are carried out in the order of the calls, which
is the same on all ranks, so they cannot wait for each other in a circle.

    caller's stream   x is computed |fence         ...         | waits for `end`, reads the total
    the stream                      waits| all_reduce |end
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from minipar.comm.frame import Call
from minipar.comm.nccl.desk import Desk


class Communicator:
    """As the functions of `native` use it, in one call."""

    def __init__(self, desk: Desk, handle: Any, stream: Any, place: tuple[int, int]) -> None:
        """place: rank and size."""
        self._desk, self._handle, self._stream = desk, handle, stream
        self.rank, self.size = place
        self.call = Call(0, 0, "", "", "")

    def enqueue(self, method: str, *arguments: Any) -> None:
        """Put an operation into the stream."""
        self._desk.do(self.call, getattr(self._handle, method), *arguments, self._stream.ptr)

    def group(self) -> AbstractContextManager[None]:
        return self._desk.group(self.call)
