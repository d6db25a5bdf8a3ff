"""A rank that is started again, and the ranks of other hosts: it listens anew, and they call.

    launchers    "joined": rank 1, at this port    ->    all ranks that are there
    rank 1, incarnation 1    <- a connection each --     those of other hosts

All hear of losses and returns in one order. So of two ranks that were both lost, the one that has
returned first calls the other. Nobody waits for a call: until it comes, what is to be sent stays
where it is. Each connection belongs to one incarnation on either side, and each side proves that it
knows the job's secret, as at first (`network`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection

from minipar.comm.hosts.doorkeeper import Doorkeeper
from minipar.comm.hosts.message import MAX_RANKS
from minipar.comm.hosts.neighbours import Address, Neighbours
from minipar.comm.hosts.network import LONGEST_S, PAUSE_S
from minipar.comm.hosts.secret import knock
from minipar.comm.hosts.tcp import TcpStream
from minipar.errors import CommError

TakeUp = Callable[[int, int, TcpStream], None]  # (rank, its incarnation, the stream to it)


def let_in(
    rank: int, incarnation: int, neighbours: Neighbours, who: Collection[int], take_up: TakeUp
) -> None:
    """On the new incarnation, in a thread of its own: take up the connections of these ranks."""
    listener = socket.socket(fileno=neighbours.listener)
    door = Doorkeeper(listener, neighbours.secret, _purpose(rank, incarnation))
    missing, until = set(who), time.monotonic() + LONGEST_S
    while missing and time.monotonic() < until:
        for number, sock in door.admit(PAUSE_S):
            theirs, other = divmod(number, MAX_RANKS)
            if other in missing:
                missing.discard(other)
                take_up(other, theirs, TcpStream(sock, other, neighbours.addresses[other][0]))
            else:
                sock.close()
    door.close()


def call(
    me: tuple[int, int],
    other: tuple[int, int],
    address: Address,
    neighbours: Neighbours,
    take_up: TakeUp,
) -> None:
    """On a rank that is there, in a thread of its own: call one that begins again.

    me, other: rank and incarnation.
    """
    (rank, incarnation), (theirs, again) = me, other
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        try:
            sock = socket.create_connection(address, LONGEST_S)
            number = incarnation * MAX_RANKS + rank
            knock(sock, neighbours.secret, _purpose(theirs, again), number)
        except ConnectionRefusedError:  # it has gone again, and the news of that is on its way
            return
        except (OSError, CommError):
            time.sleep(PAUSE_S)
        else:
            take_up(theirs, again, TcpStream(sock, theirs, address[0]))
            return


def _purpose(acceptor: int, incarnation: int) -> bytes:
    return b"to rank %d, incarnation %d" % (acceptor, incarnation)
