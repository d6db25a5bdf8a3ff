"""Between two ranks of a group: send and receive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minipar.array import Array
from minipar.comm.history import History
from minipar.comm.link import Calls, Receiving
from minipar.comm.mismatch import world_suffix
from minipar.comm.transport import ANY, Pending, Transport
from minipar.errors import UsageError


class Pairs:
    """Some ranks of the world, of which any two can talk; `Group` is all of them together.

    Ranks are counted within the group. All calls raise UsageError, CallMismatch, PeerLost,
    CommTimeout, Deadlock.
    """

    def __init__(
        self, transport: Transport, ranks: Sequence[int] | None, ident: int, history: History
    ) -> None:
        """ranks: world ranks in group order (None: all).  ident: see `subgroups`."""
        self._transport, self.history, self.ident = transport, history, ident
        self.world_ranks = tuple(range(transport.size) if ranks is None else ranks)
        self.rank = self.world_ranks.index(transport.rank)
        self.size = len(self.world_ranks)
        self.number = ident  # in what events.py records
        self._calls = Calls(transport, self.world_ranks, ident, history)

    @property
    def backend(self) -> str:
        """What carries the messages: "local", "process" or "mpi"."""
        return self._transport.backend

    @property
    def incarnation(self) -> int:
        """How often this rank has been lost and started again before (on_lost="report")."""
        losses = self._transport.losses
        return 0 if losses is None else losses.incarnation

    def lies_along(self, axis: str) -> None:
        """Have messages about its calls name that axis of the mesh. All its ranks say the same."""
        self._calls.axis = axis

    def counted_apart(self) -> Pairs:
        """The same ranks, whose sends and receives are numbered from 0, apart from the others, and
        are not among the last calls that an error tells of.
        """
        apart = Pairs(self._transport, self.world_ranks, self.ident, self.history)
        apart._calls.announced = False
        return apart

    def __repr__(self) -> str:
        world = world_suffix(self.world_ranks, self.rank)
        return f"Group(rank {self.rank} of {self.size}{world})"

    def send(self, array: Array, dst: int) -> None:
        """Send array to rank dst; afterwards it may be changed.  Cost: α + n·β.

        Up to 256 KB return at once; more may wait until dst receives.
        """
        self.isend(array, dst).wait()

    def isend(self, array: Array, dst: int) -> Pending:
        """Begin to send; array must stay as it is until `wait()` of the result returns."""
        self._check_peer("send", dst)
        return self._calls.send(dst).isend(array, dst)

    def recv(self, src: int, out: Array | None = None) -> Any:
        """The next array that rank src sends to this rank; with src=ANY the pair (src, array).

        out: an array of the same shape and dtype to receive into (it is the result, too).
        """
        return self.irecv(src, out).wait()

    def irecv(self, src: int, out: Array | None = None) -> Receiving:
        """Ask for the next array from src; `wait()` of the result returns what `recv` would."""
        self._check_peer("recv", src, also=ANY)
        return Receiving(self._calls.recv(src), src, out)

    def sendrecv(self, array: Array, dst: int, src: int, out: Array | None = None) -> Array:
        """Send to dst and receive from src at the same time; never blocks against itself."""
        sending = self.isend(array, dst)
        incoming = self.recv(src, out)
        sending.wait()
        return incoming

    def poll(self, src: int = ANY) -> bool:
        """Whether an array from src (any rank, if not given) is there for `recv` to take."""
        self._check_peer("poll", src, also=ANY)
        return self._calls.poll(src)

    def spend(self, seconds: float) -> None:
        """Say that this rank computes for so long. It moves the clock of a run with `cluster=`, by
        as much more as the rank is slow there; elsewhere, where time is measured, it does nothing.
        """
        if not 0 <= seconds < math.inf:
            raise UsageError(f"spend takes seconds, finite and not negative, not {seconds}")
        self._transport.spend(seconds)

    def now_ns(self) -> int:
        """The time of this rank in nanoseconds: virtual in a run with `cluster=`, where it begins
        at 0; elsewhere that of a clock of this process, of which only differences mean anything.
        """
        return self._transport.now_ns()

    @property
    def virtual(self) -> bool:
        """Whether `now_ns` is the time of a declared cluster (`run(cluster=...)`)."""
        return self._transport.virtual

    def waits(self) -> list[tuple[Any, str]]:
        """See `Transport.waits`."""
        return self._transport.waits()

    def _check_peer(self, op: str, peer: int, also: int = 0) -> None:
        if not 0 <= peer < self.size and peer != also:
            raise UsageError(
                f"rank {self.rank}/{self.size}, {op}: there is no rank {peer}; "
                f"this group has ranks 0 to {self.size - 1}"
            )
