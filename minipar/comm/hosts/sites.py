"""All ranks on this host, or some of them, and other launchers to talk to.

`OneHost` is the usual case. `SeveralHosts` has the ranks of one host out of several, tells the
other launchers what happens to them, and hears what happens there.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection, Mapping
from functools import partial
from itertools import permutations
from typing import Any

from minipar.comm.board import Board
from minipar.comm.deadlock import DeadlockWatch
from minipar.comm.exchange import left_in_cells
from minipar.comm.failure import Failure
from minipar.comm.heap import create_heap
from minipar.comm.hosts.host_memory import HostMemory, create_host_memory
from minipar.comm.hosts.neighbours import Address, Neighbours
from minipar.comm.hosts.nodes import Nodes
from minipar.comm.segment import Segment, create_segment
from minipar.comm.streams import left_in

NOTICE_S = 0.5  # between two looks at what the ranks of this host are doing, for other hosts


class OneHost:
    """All ranks are here."""

    def __init__(self, ranks: int) -> None:
        self.ranks = self.on_host = ranks
        self.here = range(ranks)
        self.sockets: list[socket.socket] = []
        self.may_leave_at = 0.0
        self.fates: dict[int, str] = {}
        self.memory = create_segment(ranks), create_heap()
        self.segment = Segment(self.memory[0], ranks)
        self.board = self.segment.board()
        self._watch = DeadlockWatch(self.segment, ranks)
        self._told: list[tuple[Any, ...]] = []

    def neighbours(self, rank: int) -> None:
        return None

    def started(self) -> None:
        pass

    def forget_memory(self) -> None:
        for descriptor in self.memory:
            os.close(descriptor)

    def renew(self, rank: int) -> int:
        return 0

    def door(self, rank: int, port: int) -> None:
        return None

    def tell(self, *message: Any) -> None:
        self._told.append(message)

    def deadlock(self, finished: Collection[int], lost: Collection[int] = ()) -> str | None:
        return self._watch.look((r for r in self.here if r not in finished), lost)

    def left(self) -> Failure | None:
        return left_in_memory(self.segment, self.board, self.ranks)

    def hear(self) -> list[tuple[Any, ...]]:
        told, self._told = self._told, []
        return told

    def note_finished(self, rank: int) -> None:
        pass

    def note_all_finished(self) -> None:
        pass

    def note_end(self, failure: Failure | None) -> None:
        pass

    def note_fates(self, fates: Mapping[int, str]) -> None:
        pass

    def settled(self) -> bool:
        return True

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


class SeveralHosts:
    """The ranks of one node out of several.

    Whether ranks wait for each other in a circle cannot be seen from one host, since messages may
    be on their way. So only if all nodes share one memory does node 0 look; else time decides.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes, self.ranks, self.here = nodes, nodes.ranks, nodes.mine
        self.on_host = nodes.on_host
        self.may_leave_at = float("inf")
        self.fates: dict[int, str] = {}
        self._failed = False
        shared = nodes.shared
        self.memory = nodes.memory or create_host_memory(len(shared), self.ranks)
        self._host = HostMemory(self.memory[0], shared, self.ranks)
        self.board, self.segment = self._host.board, self._host.segment
        self._one_memory = len(shared) == self.ranks
        self._watch: DeadlockWatch | None = None
        if self._one_memory and nodes.node == 0:
            self._watch = DeadlockWatch(self.segment, self.ranks)
        self._said: dict[int, bytes] = {}
        self._looked_at = 0.0

    @property
    def sockets(self) -> list[socket.socket]:
        return self._nodes.sockets

    def neighbours(self, rank: int) -> Neighbours | None:
        return self._nodes.neighbours(rank)

    def started(self) -> None:
        self._nodes.forget_listeners()

    def forget_memory(self) -> None:
        for descriptor in self.memory:
            os.close(descriptor)

    def renew(self, rank: int) -> int:
        return self._nodes.renew(rank)

    def door(self, rank: int, port: int) -> Address | None:
        host, _ = self._nodes.neighbours(rank).addresses[rank]
        return host, port

    def tell(self, *message: Any) -> None:
        self._nodes.tell(*message)

    def deadlock(self, finished: Collection[int], lost: Collection[int] = ()) -> str | None:
        if self._watch is None:
            return None
        return self._watch.look(r for r in range(self.ranks) if r not in finished)

    def left(self) -> Failure | None:
        if self._watch is None:
            return None
        return left_in_memory(self.segment, self.board, self.ranks)

    def hear(self) -> list[tuple[Any, ...]]:
        heard = []
        if time.monotonic() - self._looked_at > NOTICE_S:
            self._say_what_they_did()
        for kind, *content in self._nodes.hear():
            if kind == "notice":
                self._host.copy_notice(*content)
            elif kind == "fates":
                self.fates |= dict(zip(*content))
            else:
                heard.append((kind, *content))
        return heard

    def _say_what_they_did(self) -> None:
        self._looked_at = time.monotonic()
        for rank in () if self._one_memory else self.here:
            notice = self._host.notice(rank)
            if notice != self._said.get(rank):
                self._said[rank] = notice
                self._nodes.note_notice(rank, notice)

    def note_finished(self, rank: int) -> None:
        if rank in self.here:
            self._say_what_they_did()
            self._nodes.say("finished", rank)

    def note_all_finished(self) -> None:
        self.may_leave_at = time.monotonic()

    def note_end(self, failure: Failure | None) -> None:
        if failure is None:
            self._nodes.note_done()
        else:
            self._say_what_they_did()
            self._nodes.note_failure(failure)

    def note_fates(self, fates: Mapping[int, str]) -> None:
        self._failed = True
        self._say_what_they_did()
        self._nodes.note_fates([fates.get(rank, "") for rank in self.here])

    def settled(self) -> bool:
        return self._nodes.settled and (not self._failed or self._nodes.all_told)

    def interrupt(self) -> None:
        self._nodes.interrupt()

    def close(self) -> None:
        self._nodes.close()


def left_in_memory(segment: Segment, board: Board, ranks: int) -> Failure | None:
    """As an error, what still lies in shared memory of a collective that somebody left out."""
    for src, dst in permutations(range(ranks), 2):
        error = left_in(segment.ring(src, dst), src, dst, partial(board.did, dst))
        if error is not None:
            return Failure.of(dst, error)
    error = left_in_cells(segment, ranks)
    return None if error is None else Failure.of(0, error)
