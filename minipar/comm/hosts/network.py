"""A rank's connections to the ranks of other hosts, from the first message to the last.

    rank 2 of 4, ranks 2 and 3 on this host:    rings in shared memory   <->  3
                                                a TCP connection each    <->  0, 1
It calls those before it, and those after it call. Each rank's listening socket exists before any
rank is started, so nobody calls too early; once all have come it is closed. A connection counts
after both sides have proved that they know the job's secret.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping

from minipar.comm.hosts.doorkeeper import Doorkeeper
from minipar.comm.hosts.neighbours import Neighbours
from minipar.comm.hosts.secret import knock
from minipar.comm.hosts.tcp import TcpStream
from minipar.comm.transport import Transport
from minipar.errors import CallMismatch, CommError, PeerLost

LONGEST_S = 30.0  # for all connections of a rank; the launchers have started all ranks by then
PAUSE_S = 0.1
LAST_LOOK_S = 2.0
FIREWALL = (
    "\nUsual cause: a firewall between the hosts, which must let all ports through, since each "
    "rank has one of its own."
)


class Network:
    """The connections of one rank; none on a single host."""

    def __init__(self, streams: Mapping[int, TcpStream]) -> None:
        self.streams = dict(streams)
        self._finished = False
        self.may_leave = threading.Event()  # set once all ranks have returned, or one has failed

    def note_finished(self, rank: int) -> None:
        """That rank has returned."""
        if rank in self.streams:
            self.streams[rank].note_finished()

    def note_lost(self, rank: int) -> None:
        """The connection to that rank has ended with it."""
        self.streams.pop(rank, None)

    def take_up(self, rank: int, stream: TcpStream) -> None:
        """A connection to the next incarnation of that rank."""
        self.streams[rank] = stream
        if self._finished:
            stream.finish()

    def finish(self) -> None:
        """This rank has returned, and sends nothing more."""
        self._finished = True
        for stream in self.streams.values():
            stream.finish()

    def last_look(self, transport: Transport) -> CallMismatch | None:
        """Once all have returned: the error if somebody's collective was left out by this rank.

        A socket that is closed before all of it was read would also take back what this rank has
        sent and the other side has not yet received.
        """
        if not self.streams:
            return None
        self.may_leave.wait()
        deadline = time.monotonic() + LAST_LOOK_S
        with contextlib.suppress(CommError):
            while time.monotonic() < deadline:
                if all(s.ended for s in list(self.streams.values())):
                    break
                transport.progress()
                time.sleep(0.001)
            return transport.close()
        return None


def connect(rank: int, neighbours: Neighbours, timeout_s: float) -> dict[int, TcpStream]:
    """A connection to each rank that shares no memory with this one.

    Raises: PeerLost, naming those who could not be reached or have not called.
    """
    others = [r for r in range(len(neighbours.addresses)) if r not in neighbours.shared]
    if not others:
        return {}
    limit_s = min(timeout_s, LONGEST_S)
    deadline = time.monotonic() + limit_s
    listener = socket.socket(fileno=neighbours.listener)
    doorkeeper = Doorkeeper(listener, neighbours.secret, _purpose(rank))
    sockets: dict[int, socket.socket] = {}
    try:
        for r in others:
            if r < rank:
                sockets[r] = _call(rank, r, neighbours, deadline)
        while missing := [r for r in others if r not in sockets]:
            for number, sock in doorkeeper.admit(PAUSE_S):
                if number in missing and number not in sockets:
                    sockets[number] = sock
                else:
                    sock.close()
            if time.monotonic() > deadline:
                raise _nobody_called(rank, neighbours, missing, limit_s)
    except BaseException:
        for sock in sockets.values():
            sock.close()
        raise
    finally:
        doorkeeper.close()
    return {r: TcpStream(sock, r, neighbours.addresses[r][0]) for r, sock in sockets.items()}


def _nobody_called(
    rank: int, neighbours: Neighbours, missing: list[int], limit_s: float
) -> PeerLost:
    return PeerLost(
        f"rank {rank} at {neighbours.addresses[rank][0]} has waited {limit_s:.0f} s for the "
        f"connection from rank {', '.join(map(str, missing))}.{FIREWALL}"
    )


def _purpose(acceptor: int) -> bytes:
    return b"to rank %d" % acceptor


def _call(rank: int, other: int, neighbours: Neighbours, deadline: float) -> socket.socket:
    """A connection from this rank to another one, tried until it is there."""
    address = neighbours.addresses[other]
    while True:
        left = deadline - time.monotonic()
        try:
            sock = socket.create_connection(address, max(left, PAUSE_S))
            return knock(sock, neighbours.secret, _purpose(other), rank)
        except (OSError, CommError) as error:
            if left < 0:
                raise PeerLost(
                    f"rank {rank} cannot reach rank {other} at {address[0]}:{address[1]}: {error}."
                    f"{FIREWALL}"
                ) from None
            time.sleep(PAUSE_S)
