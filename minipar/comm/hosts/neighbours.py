"""What a rank of a job on several hosts has to know about the others."""

from __future__ import annotations

from typing import NamedTuple

Address = tuple[str, int]


class Neighbours(NamedTuple):
    """Of one rank; the launcher gives it to the rank, over its control socket."""

    shared: range  # the ranks that share this host's segment
    listener: int  # descriptor of this rank's listening socket, -1 if all ranks share memory
    addresses: tuple[Address, ...]  # of every rank's listening socket
    secret: bytes  # of this job
