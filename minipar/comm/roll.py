"""The launcher's list of lost ranks, and what has to happen before one of them begins again.

    rank 1 dies        the launcher                                rank 0, and every other one
                       rank 1 is lost          --"reported"-->     takes in what rank 1 has sent,
                       starts a new process                        clears its channels to rank 1,
                       all have heard?         <--on the board--   has heard
                       clears what nobody has
                       new rank 1: "start"     --"joined"-->       opens the channels again

So nobody touches the memory between rank 1 and others while it is made as new, and nothing of the
old incarnation is left in it. `losses` has the side of the ranks.
"""

from __future__ import annotations

import signal
from collections.abc import Collection

from minipar.comm.child import Child
from minipar.comm.crew import Crew
from minipar.comm.exchange import CELL, REACHED
from minipar.comm.failure import Failure
from minipar.comm.losses import Lost, Standing
from minipar.comm.segment import Segment


class Roll:
    """Of a job of processes on one host whose lost ranks are reported."""

    def __init__(self, segment: Segment, ranks: int, restarts: int) -> None:
        self.segment, self._board, self._ranks = segment, segment.board(), ranks
        self.restarts = restarts  # how many are left
        self.lost: list[Lost] = []
        self.failures: dict[int, Failure] = {}  # of the last incarnation of each lost rank
        self.absent: set[int] = set()  # lost, and will return

    def lose(self, failure: Failure, returns: bool) -> Lost:
        """The rank of that failure is lost."""
        rank = failure.rank
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
        """Ranks that can begin again, since those who are there have heard of every loss."""
        heard = all(self._board.heard(r) == len(self.lost) for r in there)
        return sorted(self.absent) if heard else []

    def clear(self, rank: int, there: Collection[int]) -> None:
        """Make what lies between the rank and those who are not there as new, so that the rank can
        begin. The others have cleared their part.
        """
        cells = self.segment.cells().cast("Q")
        for other in set(range(self._ranks)) - {rank, *there}:
            for a, b in ((rank, other), (other, rank)):
                self.segment.ring(a, b).clear()
                start = (a * self._ranks + b) * CELL
                for word in range(start, start + CELL):
                    cells[word] = 0
        cells[(rank * self._ranks + rank) * CELL + REACHED] = 0
        self._board.note_heard(rank, len(self.lost))
        self.absent.discard(rank)
        self.failures.pop(rank, None)


# -- what the launcher does -----------------------------------------------------------------------


def report_loss(
    child: Child, roll: Roll, crew: Crew, finished: Collection[int], stopping: bool
) -> None:
    """The rank's process has ended; the others go on, perhaps with another in its place.

    finished: ranks that have returned.  stopping: whether the job is about to end.
    """
    number = child.number
    child.send_signal(signal.SIGKILL)  # what it has started and left behind
    if number in finished:  # it broke after its return, so nobody waits for it
        roll.failures[number] = child.failure
        crew.say(number, child.failure.why)
        return
    returns = roll.restarts > 0 and not stopping and crew.replace(child)
    lost = roll.lose(child.failure, returns)
    crew.say(number, str(lost))
    crew.broadcast("reported", lost)


def start_again(roll: Roll, crew: Crew, finished: Collection[int]) -> None:
    """Let those begin of whose loss all others have heard."""
    there = {
        c.number for c in crew.children if c.started and not c.exited and c.number not in finished
    }
    for number in roll.due(there):
        roll.clear(number, there)
        crew.broadcast("joined", number, roll.incarnation(number))
        child = next(c for c in crew.children if c.number == number)
        crew.begin(child, roll.standing(finished))
        there.add(number)
