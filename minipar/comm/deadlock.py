"""No rank can go on: how that is seen when ranks are processes, and how it is told.

On the local backend the baton shows it at once. Processes write on the board when they begin and
when they end a wait, and the launcher looks: if all living ranks wait, nothing lies in any ring,
and it stays like that, then no message can ever come.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Sequence
from itertools import permutations

from minipar.comm.segment import Segment
from minipar.comm.transport import ANY
from minipar.comm.whereabouts import FINISHED, LAST_CALLS, Whereabouts, who_waits

# A call as Call.__str__ writes it.  The numbers of sends and receives count for one peer each.
COLLECTIVE = re.compile(r"(?P<what>(?!send|recv)\w+ (?P<number>#\d+( of group \d+)?).*?) at ")
LOOKS = 20  # so often must it look the same, and for at least ...
LASTING_S = 1.0  # ... so long: a rank may just have taken its message and not yet said so
MOST_NAMED = 8  # ranks in the first sentence


class DeadlockWatch:
    """Looks at the shared segment of a job of processes."""

    def __init__(self, segment: Segment, ranks: int) -> None:
        self._board, self._ranks = segment.board(), ranks
        self._rings = [(dst, segment.ring(src, dst)) for src, dst in permutations(range(ranks), 2)]
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._looks, self._since = 0, 0.0

    def look(self, living: Iterable[int], lost: Collection[int] = ()) -> str | None:
        """The report of a deadlock among the living ranks, or None; to be called repeatedly."""
        ranks = [rank for rank in living if rank not in lost]
        board = self._board
        seen = tuple((board.waits(r), board.second(r), board.fetches(r)) for r in ranks)
        stuck = bool(ranks) and all(first % 2 and not second % 2 for first, second, _ in seen)
        coming = any(ring.readable() for dst, ring in self._rings if dst not in lost)
        if not stuck or seen != self._seen or coming:
            self._seen, self._looks, self._since = seen, 0, time.monotonic()
            return None
        self._looks += 1
        if self._looks < LOOKS or time.monotonic() - self._since < LASTING_S:
            return None
        return report([self._whereabouts(r, r in ranks, r in lost) for r in range(self._ranks)])

    def _whereabouts(self, rank: int, waits: bool, lost: bool) -> Whereabouts:
        calls = tuple(map(str, self._board.last(rank)[-LAST_CALLS:]))
        if waits:
            return Whereabouts(calls, self._board.waits_for(rank))
        return Whereabouts(calls, fate="is lost" if lost else FINISHED)


def report(ranks: Sequence[Whereabouts]) -> str:
    """Who waits for whom, of all ranks in order."""
    short = []
    for number, rank in enumerate(ranks[:MOST_NAMED]):
        whom = "any rank" if rank.whom == ANY else f"rank {rank.whom}"
        short.append(f"rank {number} {rank.fate if rank.whom is None else f'waits for {whom}'}")
    if len(ranks) > MOST_NAMED:
        short.append(f"and {len(ranks) - MOST_NAMED} more wait or have finished")
    first = _contradiction(ranks) or ", ".join(short)
    return (
        f"no rank can go on: {first}.\n"
        "Usual causes: a rank left out a call that the others made (an `if rank == 0:` around it),"
        "\ndifferent roots, or two ranks that both receive first (without buffers: that both send "
        f"first).\n{who_waits(ranks)}"
    )


def _contradiction(ranks: Sequence[Whereabouts]) -> str:
    """Two collectives under one number of one group that are not the same, or ""."""
    seen: dict[str, tuple[int, str]] = {}
    for rank, last in enumerate(ranks):
        if found := COLLECTIVE.match(last.call):
            first, call = seen.setdefault(found["number"], (rank, found["what"]))
            if call != found["what"]:
                return f"rank {first} makes {call}, but rank {rank} makes {found['what']}"
    return ""
