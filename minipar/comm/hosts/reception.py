"""Node 0's launcher, while those of the other nodes come."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Sequence

from minipar import __version__
from minipar.comm.hosts.doorkeeper import Doorkeeper
from minipar.comm.hosts.link import NodeLink
from minipar.comm.hosts.meeting import PURPOSE, Meeting
from minipar.errors import CommError

PAUSE_S = 0.1
SAY_SO_AFTER_S = 5.0


class Reception:
    """Admits, greets, and says who is missing."""

    def __init__(self, meeting: Meeting, listener: socket.socket, memory: Sequence[int]) -> None:
        self._meeting, self._memory = meeting, memory
        self._door = Doorkeeper(listener, meeting.token, PURPOSE)
        self._new: list[NodeLink] = []
        self._come: dict[int, tuple[NodeLink, list[int]]] = {}

    def wait(self) -> list[tuple[NodeLink, list[int]]]:
        """The links to nodes 1, 2, ..., and the ports of their ranks.

        Raises: CommError, naming who has not come before the meeting's timeout.
        """
        try:
            self._wait()
        except BaseException as error:
            for link in (*self._new, *(link for link, _ in self._come.values())):
                link.say("refused", str(error) or "it was interrupted")
                link.close(0.0)
            raise
        finally:
            self._door.close()
        for link in self._new:
            link.close(0.0)
        return [self._come[node] for node in sorted(self._come)]

    def _wait(self) -> None:
        begun, said_so = time.monotonic(), False
        while len(self._come) < self._meeting.nodes - 1:
            for number, sock in self._door.admit(PAUSE_S):
                self._admit(number, sock)
            for link in list(self._new):
                self._greet(link)
            self._come = {n: c for n, c in self._come.items() if self._is_there(c[0])}
            waited = time.monotonic() - begun
            if waited > self._meeting.timeout_s:
                raise CommError(self._who_is_missing(waited))
            if waited > SAY_SO_AFTER_S and not said_so:
                said_so = True
                print(f"minipar: {self._who_is_missing(waited)}", file=sys.stderr, flush=True)

    def _admit(self, number: int, sock: socket.socket) -> None:
        if self._memory:
            socket.send_fds(sock, [b"\0"], self._memory)
        host = "this host" if self._memory else sock.getpeername()[0]
        self._new.append(NodeLink(sock, number, host))

    def _greet(self, link: NodeLink) -> None:
        for kind, *values in link.hear()[:1]:
            self._new.remove(link)
            if kind != "hello":
                link.close(0.0)
                return
            version, nodes, ports = values
            refusal = self._refusal(link.node, version, nodes, len(ports))
            if refusal:
                link.say("refused", refusal)
                link.close(0.0)
            else:
                self._come[link.node] = link, ports
            return
        if link.lost is not None:
            self._new.remove(link)
            link.close(0.0)

    def _refusal(self, node: int, version: str, nodes: int, ranks: int) -> str:
        if version != __version__:
            return f"it runs minipar {version}, and node 0 runs {__version__}"
        if nodes != self._meeting.nodes:
            return f"it was started with --nnodes {nodes}, and node 0 with {self._meeting.nodes}"
        if not 0 < node < nodes:
            return f"there is no node {node}: --node-rank goes from 0 to {nodes - 1}"
        if node in self._come:
            return f"node {node} is there already: each host needs a --node-rank of its own"
        return "" if ranks else "it has no ranks"

    def _is_there(self, link: NodeLink) -> bool:
        link.hear()
        if link.lost is not None:
            link.close(0.0)
        return link.lost is None

    def _who_is_missing(self, waited: float) -> str:
        nodes = self._meeting.nodes
        here = [0, *sorted(self._come)]
        missing = ", ".join(str(n) for n in range(nodes) if n not in here)
        strangers = self._door.turned_away
        return (
            f"{len(here)} of {nodes} nodes have come: {', '.join(map(str, here))}; waited "
            f"{waited:.0f} s for node {missing} at {self._meeting}"
            + (f"; turned away without the right token: {strangers}" if strangers else "")
        )
