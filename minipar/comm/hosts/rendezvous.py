"""How the launchers of a job find each other, before any rank is started.

    node 0   listens at HOST:PORT ............ admits those who know the token
    node i   calls, until somebody answers     "hello": so many ranks, these ports
    node 0   when all have come ..............  "welcome": the ranks of each node, all addresses

Each launcher opens the listening sockets of its ranks, at the address by which it reaches node 0:
on the loopback interface, if HOST is. Then node 0 stops listening. Launchers that torchrun or srun
has started on one host meet at a Unix socket instead, and their ranks share memory.
"""

from __future__ import annotations

import secrets
import socket
import time

from minipar import __version__
from minipar.comm.hosts.host_memory import create_host_memory
from minipar.comm.hosts.link import NodeLink
from minipar.comm.hosts.meeting import PURPOSE, Meeting, connected, listen
from minipar.comm.hosts.neighbours import Address, Neighbours
from minipar.comm.hosts.nodes import Nodes, listening
from minipar.comm.hosts.reception import PAUSE_S, Reception
from minipar.comm.hosts.secret import NotAdmitted, derived, knock
from minipar.errors import CommError

VERDICT_S = 2.0  # in which node 0, whose time may end a little later, says who has not come
REFUSALS = 3  # after which the token is wrong, and not just the door crowded


def meet(meeting: Meeting) -> Nodes:
    """Come together with the launchers of all other nodes.

    Raises: CommError, which says who has not come, or why this node was not let in; UsageError.
    """
    return _host(meeting) if meeting.node == 0 else _join(meeting)


# -- node 0 -----------------------------------------------------------------------------------


def _host(meeting: Meeting) -> Nodes:
    listener = listen(meeting)
    own = "" if isinstance(meeting.where, str) else listener.getsockname()[0]
    memory = None if own else create_host_memory(meeting.nodes, meeting.nodes)
    come = Reception(meeting, listener, memory or ()).wait()
    listeners = _open_listeners(own, meeting.ranks)
    counts, addresses = [meeting.ranks], [(own, n) for n in _ports(listeners, meeting.ranks)]
    for link, ports in come:
        counts.append(len(ports))
        addresses += [(link.address, n) for n in ports]
    welcome = counts, addresses, secrets.token_hex(32)
    for link, _ in come:
        link.say("welcome", *welcome)
    return _nodes(meeting, welcome, [link for link, _ in come], listeners, memory)


# -- the others -------------------------------------------------------------------------------


def _join(meeting: Meeting) -> Nodes:
    deadline = time.monotonic() + meeting.timeout_s
    sock = _call(meeting, deadline)
    own, memory = "", None
    if isinstance(meeting.where, str):
        memory = _received(sock)
    else:
        own = sock.getsockname()[0]
    listeners = _open_listeners(own, meeting.ranks)
    link = NodeLink(sock, 0, sock.getpeername()[0] if own else "this host")
    link.say("hello", __version__, meeting.nodes, _ports(listeners, meeting.ranks))
    try:
        kind, *content = link.wait_for(("welcome", "refused"), deadline + VERDICT_S)
    except (CommError, TimeoutError) as error:
        link.close(0.0)
        why = str(error) or "not all nodes have come in time"
        raise CommError(f"node {meeting.node} waited for node 0 at {meeting}: {why}") from None
    if kind == "refused":
        link.close(0.0)
        raise CommError(f"node 0 at {meeting} sent node {meeting.node} away: {content[0]}")
    counts, addresses, nonce = content
    if len(counts) != meeting.nodes or sum(counts) != len(addresses):
        raise CommError(f"the welcome of node 0 at {meeting} makes no sense")
    return _nodes(meeting, (counts, addresses, nonce), [link], listeners, memory)


def _call(meeting: Meeting, deadline: float) -> socket.socket:
    """A connection to node 0 after both have proved themselves, tried until it is there."""
    refusals = 0
    while True:
        left = deadline - time.monotonic()
        try:
            sock = connected(meeting, max(left, PAUSE_S))
            return knock(sock, meeting.token, PURPOSE, meeting.node)
        except NotAdmitted as error:
            refusals += 1
            if refusals == REFUSALS:
                raise CommError(
                    f"node {meeting.node} was not let in at {meeting}: {error}"
                ) from None
        except OSError as error:
            if left < 0:
                raise CommError(
                    f"node {meeting.node} cannot reach node 0 at {meeting}: {error}; tried for "
                    f"{meeting.timeout_s:.0f} s. Is it started, with the same --rendezvous?"
                ) from None
        time.sleep(PAUSE_S)


def _received(sock: socket.socket) -> tuple[int, int]:
    """The descriptors of the memory that all nodes of this host share."""
    _, descriptors, _, _ = socket.recv_fds(sock, 1, 2)
    if len(descriptors) != 2:
        raise CommError("node 0 on this host has given no memory to share")
    return descriptors[0], descriptors[1]


# -- both -------------------------------------------------------------------------------------


def _open_listeners(host: str, ranks: int) -> list[socket.socket]:
    """A listening socket for each rank of this node; none if all ranks share memory."""
    return [listening(host) for _ in range(ranks if host else 0)]


def _ports(sockets: list[socket.socket], ranks: int) -> list[int]:
    return [sock.getsockname()[1] for sock in sockets] or [0] * ranks


def _nodes(
    meeting: Meeting,
    welcome: tuple[list[int], list[Address], str],
    links: list[NodeLink],
    listeners: list[socket.socket],
    memory: tuple[int, int] | None,
) -> Nodes:
    """What this launcher knows after the welcome (ranks of each node, addresses, nonce).

    memory: the descriptors of what the ranks of all nodes share; None: each node has its own.
    """
    counts, addresses, nonce = welcome
    part = range(sum(counts[: meeting.node]), sum(counts[: meeting.node + 1]))
    known = Neighbours(
        shared=part if memory is None else range(sum(counts)),
        listener=-1,
        addresses=tuple((host, port) for host, port in addresses),
        secret=derived(meeting.token, nonce.encode()),
    )
    return Nodes(meeting.node, counts, links, known, meeting.on_host, listeners, memory)
