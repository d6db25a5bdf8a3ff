"""What the launcher of a host has to do with the rest of its job: a contract.

`sites` has the two that keep it: all ranks are on this host, or other launchers have the others.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from minipar.comm.board import Board
from minipar.comm.failure import Failure
from minipar.comm.hosts.neighbours import Address, Neighbours


class Site(Protocol):
    """The ranks that are started here, and their place among all."""

    ranks: int  # of the job
    here: range  # those started here
    on_host: int  # ranks that share this host's cores
    memory: tuple[int, int]  # the descriptors of segment and heap that they share
    segment: Any  # in the first of them
    board: Board
    may_leave_at: float  # when a rank that has returned may go: 0 at once, inf not yet
    fates: dict[int, str]  # what has become of ranks of other hosts, "": nothing that is known

    @property
    def sockets(self) -> list[socket.socket]:
        """Where other launchers may be heard."""

    def neighbours(self, rank: int) -> Neighbours | None:
        """What a rank started here has to know of others; None if all are here."""

    def started(self) -> None:
        """The ranks have inherited where they listen."""

    def forget_memory(self) -> None:
        """No rank will be started any more."""

    def renew(self, rank: int) -> int:
        """Open a door for the next incarnation of a rank started here; its port."""

    def door(self, rank: int, port: int) -> Address | None:
        """Where ranks of other hosts call it; None if there are none."""

    def tell(self, *message: Any) -> None:
        """Have it heard by all launchers, this one included, and by all in the same order."""

    def deadlock(self, finished: Collection[int], lost: Collection[int] = ()) -> str | None:
        """The report of a deadlock, if one is seen."""

    def left(self) -> Failure | None:
        """A collective that some ranks made and others left out, when all have returned."""

    def hear(self) -> list[tuple[Any, ...]]:
        """What other launchers say, as `Nodes.hear` has it."""

    def note_finished(self, rank: int) -> None:
        """That rank, of this host or another, has returned."""

    def note_all_finished(self) -> None:
        """Now all have that are not lost."""

    def note_end(self, failure: Failure | None) -> None:
        """A rank of this host has failed, or all have ended well."""

    def note_fates(self, fates: Mapping[int, str]) -> None:
        """All ranks of this host have ended, and the job has failed."""

    def settled(self) -> bool:
        """Whether it is known how the job has ended everywhere and, if it has failed, what the
        ranks did then.
        """

    def interrupt(self) -> None:
        """Ctrl-C was pressed."""

    def close(self) -> None: ...
