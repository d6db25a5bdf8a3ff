"""The launchers of the other hosts, as the launcher of this one sees them.

    node 1 --- node 0 --- node 2       all of them talk to node 0, which passes on what concerns all

A node is a host's launcher with its ranks. Node 0 also decides which failure was the first, so that
every host ends with the same sentence, and when all are done. Of lost ranks, if they are reported,
all launchers hear in one order, that in which node 0 has heard of them: what one of them says goes
to node 0, and comes back.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from minipar.comm.failure import Failure
from minipar.comm.hosts.link import NodeLink
from minipar.comm.hosts.neighbours import Neighbours

Heard = tuple[Any, ...]
MAX_FATE = 200  # characters


class Nodes:
    """The job's nodes; `links` are to all others on node 0, to node 0 elsewhere."""

    def __init__(
        self,
        node: int,
        counts: Sequence[int],
        links: Sequence[NodeLink],
        known: Neighbours,
        on_host: int,
        listeners: Sequence[socket.socket] = (),
        memory: tuple[int, int] | None = None,
    ) -> None:
        """counts: ranks of each node.  known: what all ranks of this node have to know.

        on_host: ranks on this host, of this node and others.
        listeners: for each rank of this node, if its ranks share memory among themselves only;
        else memory: the descriptors of segment and heap, which all share.
        """
        starts = [0, *accumulate(counts)]
        self._parts = [range(*pair) for pair in pairwise(starts)]
        self.node, self.ranks, self.mine = node, starts[-1], self._parts[node]
        self.shared, self.memory, self.on_host = known.shared, memory, on_host
        self._links, self._known = list(links), known
        self._listeners = dict(zip(self.mine, listeners))
        self.reports = False  # whether a lost rank is not the end of the job
        self._own: list[Heard] = []  # what this launcher has told itself
        self.settled = False  # whether all nodes agree on how the job has ended
        self._busy = set(range(len(counts)))  # nodes that are not done
        self._untold = set(range(self.ranks)) - set(self.mine)  # ranks of unknown fate
        self._verdict: Failure | None = None
        self._interrupted = False

    @property
    def sockets(self) -> list[socket.socket]:
        """Where something may be heard."""
        return [link.socket for link in self._links]

    def neighbours(self, rank: int) -> Neighbours:
        """What that rank of this node has to know."""
        listener = self._listeners[rank].fileno() if rank in self._listeners else -1
        return self._known._replace(listener=listener)

    def renew(self, rank: int) -> int:
        """A new listening socket for the next incarnation of a rank of this node; its port."""
        self._listeners[rank] = listening(self._known.addresses[rank][0])
        return int(self._listeners[rank].getsockname()[1])

    def forget_listeners(self) -> None:
        """The ranks have theirs now."""
        for sock in self._listeners.values():
            sock.close()
        self._listeners.clear()

    # -- what this host has to say ---------------------------------------------------------------

    def say(self, *message: Any) -> None:
        """Tell all others, directly or through node 0."""
        for link in self._links:
            link.say(*message)

    def tell(self, *message: Any) -> None:
        """Tell all, this launcher too, in the one order in which all hear such things."""
        self.say(*message)
        if self.node == 0:
            self._own.append(message)

    def note_notice(self, rank: int, notice: bytes) -> None:
        """Say what a rank of this host is doing."""
        self.say("notice", rank, base64.b64encode(notice).decode())

    def note_failure(self, failure: Failure) -> None:
        """A rank of this host has failed, or a node was lost."""
        if self.node == 0:
            self._decide(failure)
        elif failure.rank in self.mine:  # else it is the verdict, which node 0 has told us
            self.say("failed", failure.rank, failure.summary, failure.exit_code)

    def note_fates(self, fates: list[str]) -> None:
        """The job has failed; what has become of the ranks of this node, in their order."""
        self.say("fates", list(self.mine), [fate[:MAX_FATE] for fate in fates])

    @property
    def all_told(self) -> bool:
        """Whether that was heard of all others, or cannot be any more."""
        return not self._untold or all(link.lost is not None for link in self._links)

    def note_done(self) -> None:
        """All ranks of this host have ended well."""
        if self.node == 0:
            self._note_done(0)
        else:
            self.say("done")

    # -- what the others say ---------------------------------------------------------------------

    def hear(self) -> list[Heard]:
        """("finished", rank), ("failed", Failure), ("notice", rank, bytes), ("interrupt", node),
        ("fates", ranks, what has become of them)

        And if lost ranks are reported: ("reported", rank, why, may return), ("joined", rank, port),
        ("gone", ranks, why) of a node, on node 0.
        """
        heard, self._own = self._own, []
        for link in self._links:
            for message in link.hear():
                heard += self._heed(link, message)
            if link.lost is not None and not self.settled:
                heard += self._lost(link)
        return heard

    def _heed(self, link: NodeLink, message: Heard) -> list[Heard]:
        kind, *values = message
        try:
            if kind in ("finished", "notice", "failed", "reported", "joined"):
                self._check_rank(link, values[0])
            for rank in values[0] if kind == "fates" else ():
                self._check_rank(link, rank)
            return self._sort(link, kind, values)
        except ValueError as error:
            link.lost = f"it sent what cannot be: {error}"
            return []

    def _check_rank(self, link: NodeLink, rank: int) -> None:
        """Node 0 passes on what all others say; they speak of their own ranks only."""
        known = range(self.ranks) if link.node == 0 else self._parts[link.node]
        if rank not in known:
            raise ValueError(f"rank {rank} is none of node {link.node}'s")

    def _sort(self, link: NodeLink, kind: str, values: list[Any]) -> list[Heard]:
        match kind:
            case "failed":
                rank, summary, code = values
                self._decide(Failure(rank, summary, exit_code=code or 1))
                return [(kind, self._verdict)] if self._verdict is not None else []
            case "done" if self.node == 0:
                self._note_done(link.node)
            case "done":
                self.settled = True
            case "job" if self.node != 0:
                return [(kind, *values)]
            case "interrupt":
                self._pass_on(link, kind, *values)
                self._interrupted = self.settled = True
                return [(kind, *values)]
            case "finished":
                self._pass_on(link, kind, *values)
                return [(kind, *values)]
            case "fates":
                self._pass_on(link, kind, *values)
                self._untold -= set(values[0])
                return [(kind, *values)]
            case "reported" | "joined":
                self._pass_on(None, kind, *values)
                return [(kind, *values)]
            case "notice":
                self._pass_on(link, kind, *values)
                raw = base64.b64decode(values[1], validate=True)
                return [(kind, values[0], raw)]
        return []

    def _pass_on(self, source: NodeLink | None, *message: Any) -> None:
        """From node 0 to all others; to the source as well, if it is None."""
        for link in self._links if self.node == 0 else ():
            if link is not source:
                link.say(*message)

    def _lost(self, link: NodeLink) -> list[Heard]:
        """A node is gone, and with it its ranks."""
        self._links.remove(link)
        link.close(0.0)
        part = self._parts[link.node]
        names = f"rank {part[0]}" if len(part) == 1 else f"ranks {part[0]} to {part[-1]}"
        where = f"node {link.node} at {link.address}"
        self._untold -= set(part)
        if self.reports and self.node == 0:
            self._note_done(link.node)
            return [("gone", part, f"{where}: {link.lost}")]
        failure = Failure(part[0], f"{where} ({names}) is lost: {link.lost}")
        if self._verdict is None:
            self._decide(failure)
        self.settled = self.settled or self.node != 0
        return [("failed", self._verdict)] if self._verdict is not None else []

    # -- how it ends -----------------------------------------------------------------------------

    def _decide(self, failure: Failure) -> None:
        """The first failure that node 0 hears of is the job's."""
        if self.node != 0:
            self._verdict = failure
            self.settled = True
        elif self._verdict is None and not self._interrupted:
            self._verdict = failure
            self.say("failed", failure.rank, failure.summary, failure.exit_code)
            self.settled = True

    def _note_done(self, node: int) -> None:
        self._busy.discard(node)
        if not self._busy and self._verdict is None:
            self.say("done")
            self.settled = True

    def interrupt(self) -> None:
        """Ctrl-C was pressed here, or heard of."""
        if not self._interrupted:
            self._interrupted = self.settled = True
            self.say("interrupt", self.node)

    def close(self) -> None:
        """Say the last things."""
        for link in self._links:
            link.close()


def listening(host: str) -> socket.socket:
    """A listening socket at that address of this host, at a port that the system chooses."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, backlog=128)
