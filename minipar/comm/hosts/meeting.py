"""Where the launchers of a job meet, and the sockets for that place."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

from minipar.comm.hosts.doorkeeper import may_be_trusted
from minipar.comm.hosts.neighbours import Address
from minipar.comm.hosts.secret import NotAdmitted
from minipar.errors import CommError, UsageError

PURPOSE = b"to node 0"  # of these connections, as proofs name it


class Meeting(NamedTuple):
    """What a launcher knows before it has met the others."""

    where: Address | str  # HOST, PORT; or the name of an abstract Unix socket of this host
    node: int
    nodes: int
    ranks: int  # of this node
    token: bytes
    timeout_s: float
    on_host: int  # ranks on this host, of all nodes

    def __str__(self) -> str:
        if isinstance(self.where, str):
            return "the Unix socket of this job"
        host, port = self.where
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def where(text: str) -> Address:
    """HOST:PORT, or [HOST]:PORT with colons in HOST.  Raises: UsageError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            f"{text!r} is no rendezvous: it takes HOST:PORT, where HOST is the name or address of "
            "node 0 as the other hosts know it."
        )
    if host in ("0.0.0.0", "::", "*"):
        raise UsageError(f"the rendezvous {text} names no host; the others could not call it.")
    return host, int(port)


def listen(meeting: Meeting) -> socket.socket:
    """Node 0's listening socket.  Raises: CommError."""
    family, address = _place(meeting)
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise CommError(
            f"node 0 cannot listen at {meeting}: {error.strerror}. Choose another port, and an "
            "address of the host where node 0 runs."
        ) from None
    return listener


def connected(meeting: Meeting, timeout_s: float) -> socket.socket:
    """A connection to node 0.  Raises: OSError."""
    family, address = _place(meeting)
    sock = socket.socket(family)
    try:
        sock.settimeout(timeout_s)
        sock.connect(address)
        if not may_be_trusted(sock):
            raise NotAdmitted("another user listens there")
    except BaseException:
        sock.close()
        raise
    return sock


def _place(meeting: Meeting) -> tuple[socket.AddressFamily, Any]:
    """The kind of socket, and its address."""
    if isinstance(meeting.where, str):
        return socket.AF_UNIX, "\0" + meeting.where
    host, port = meeting.where
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return family, address
    except socket.gaierror as error:
        raise UsageError(f"--rendezvous {meeting}: {error.strerror}") from None
