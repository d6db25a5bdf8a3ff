"""The launcher's list of lost ranks, and what has to happen before one of them begins again.

    rank 1 dies        the launcher                                rank 0, and every other one
                       rank 1 is lost          --"reported"-->     takes in what rank 1 has sent,
                       starts a new process                        clears its channels to rank 1,
                       all have heard?         <--on the board--   has heard
                       clears what nobody has
                       new rank 1: "start"     --"joined"-->       opens the channels again

So nobody touches the memory between rank 1 and others while it is made as new, and nothing of the
old incarnation is left in it. `losses` has the side of the ranks.

On several hosts every launcher has such a list. What stands in quotes is told to all launchers, who
hear it in one order, so their lists are the same; and "joined" says where rank 1 can be called,
since its connections have ended with it (`hosts.comeback`).
"""

from __future__ import annotations

import signal
from collections.abc import Collection

from minipar.comm.board import Board
from minipar.comm.child import Child
from minipar.comm.crew import Crew
from minipar.comm.exchange import CELL, REACHED
from minipar.comm.failure import Failure
from minipar.comm.losses import Lost, Standing
from minipar.comm.segment import Segment
from minipar.comm.site import Site


class Roll:
    """Of a job of processes whose lost ranks are reported."""

    def __init__(
        self, segment: Segment, board: Board, here: range, ranks: int, restarts: int
    ) -> None:
        """here: the ranks in the segment, of all ranks.  restarts: how many are left."""
        self.segment, self._board, self._here = segment, board, here
        self.ranks, self.restarts = ranks, restarts
        self.lost: list[Lost] = []
        self.failures: dict[int, Failure] = {}  # of the last incarnation of each lost rank
        self.absent: set[int] = set()  # lost, and will return
        self.ports: dict[int, int] = {}  # of those who will, here, and are not yet due

    def lose(self, failure: Failure, may_return: bool) -> Lost:
        """The rank of that failure is lost, and returns if it may and restarts are left."""
        rank, returns = failure.rank, may_return and self.restarts > 0
        self.restarts -= returns
        lost = Lost(rank, self.incarnation(rank), failure.why, returns)
        self.lost.append(lost)
        self.failures[rank] = failure
        self.absent.discard(rank)
        if returns:
            self.absent.add(rank)
        self._board.begin_anew(rank)
        return lost

    @property
    def first(self) -> Failure:
        """The first of the last incarnations."""
        ranks = [lost.rank for lost in self.lost if not lost.returns]
        return self.failures[ranks[0]]

    def incarnation(self, rank: int) -> int:
        """Which one is next, or lives."""
        return sum(lost.rank == rank for lost in self.lost)

    @property
    def for_good(self) -> set[int]:
        """Ranks that do not return."""
        return {lost.rank for lost in self.lost if not lost.returns}

    def standing(self, finished: Collection[int]) -> Standing:
        return Standing(tuple(self.lost), frozenset(self.absent), frozenset(finished))

    def due(self, there: Collection[int]) -> list[int]:
        """Ranks that can begin again here, since those who are there have heard of every loss."""
        heard = all(self._board.heard(r) == len(self.lost) for r in there)
        return sorted(self.ports) if heard else []

    def clear(self, rank: int, there: Collection[int]) -> None:
        """Make what lies between the rank and those who are not there as new, so that the rank can
        begin. The others have cleared their part.
        """
        cells, first, p = self.segment.cells().cast("Q"), self._here.start, len(self._here)
        for other in set(self._here) - {rank, *there}:
            for a, b in ((rank - first, other - first), (other - first, rank - first)):
                self.segment.ring(a, b).clear()
                start = (a * p + b) * CELL
                for word in range(start, start + CELL):
                    cells[word] = 0
        cells[(rank - first) * (p + 1) * CELL + REACHED] = 0
        self._board.note_heard(rank, len(self.lost))


# -- what the launcher does -----------------------------------------------------------------------


def report_loss(
    child: Child, roll: Roll, crew: Crew, site: Site, finished: Collection[int], stopping: bool
) -> None:
    """The rank's process has ended; the others go on, perhaps with another in its place.

    finished: ranks that have returned.  stopping: whether the job is about to end.
    """
    number = child.number
    child.send_signal(signal.SIGKILL)  # what it has started and left behind
    if number in finished:  # it broke after its return, so nobody waits for it
        roll.failures[number] = child.failure
        crew.say(number, child.failure.why)
    else:
        site.tell("reported", number, child.failure.why, not stopping)


def note_loss(roll: Roll, crew: Crew, site: Site, rank: int, why: str, may_return: bool) -> None:
    """All launchers hear that a rank is lost; that of its host starts another in its place."""
    child = crew.child(rank)
    failure = Failure(rank, why) if child is None else child.failure
    lost = roll.lose(failure, may_return)
    crew.say(rank, str(lost))
    crew.broadcast("reported", lost)
    if child is not None and lost.returns:
        port = site.renew(rank)
        refused = crew.replace(child)
        site.started()
        if refused:
            site.tell("reported", rank, f"{why}; {refused}", False)
        else:
            roll.ports[rank] = port


def call_for_return(roll: Roll, crew: Crew, site: Site, finished: Collection[int]) -> None:
    """Let those of this host begin again of whose loss all others here have heard."""
    for number in roll.due(_there(crew, finished)):
        site.tell("joined", number, roll.ports.pop(number))


def begin_again(
    roll: Roll, crew: Crew, site: Site, finished: Collection[int], rank: int, port: int
) -> None:
    """All launchers hear that a rank begins again."""
    child = crew.child(rank)
    roll.absent.discard(rank)
    roll.failures.pop(rank, None)
    if child is not None:
        roll.clear(rank, _there(crew, finished))
    crew.broadcast("joined", rank, roll.incarnation(rank), site.door(rank, port))
    if child is not None:
        crew.begin(child, roll.standing(finished))


def _there(crew: Crew, finished: Collection[int]) -> set[int]:
    return {
        c.number for c in crew.children if c.started and not c.exited and c.number not in finished
    }
