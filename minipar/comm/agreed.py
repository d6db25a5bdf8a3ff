"""Collectives that a library carries out, MPI or NCCL, under the name algorithm="native".

No header of ours can travel in them, and a rank that makes another call would leave all hanging. So
the ranks meet in a barrier of checked messages first: after it, everybody is known to be in this
very call. `check=False` leaves that out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from minipar.comm.wiring import Array

Algorithm = Callable[..., Any]


class Native(NamedTuple):
    """What a link tells for a native call."""

    communicator: Callable[[], Any]  # makes it, the first time: all ranks of the group together
    root: int
    combine: Callable[..., Array]
    check: bool


def agreed(run: Algorithm, barrier: Algorithm) -> Algorithm:
    """run(link, ...), once all ranks are in this call.  barrier: over messages with headers."""

    def native(link: Any, *arrays: Any) -> Any:
        how = link.native()
        if how.check:
            barrier(link)
        return run(how.communicator(), how, *arrays)

    return native
