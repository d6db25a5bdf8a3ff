"""Which chunk is where, and who has contributed to it, after every step of a collective.

The real algorithm runs on the local backend. Rank r contributes 2^r to every chunk, so a chunk's
value tells, as a set of bits, whose parts are in it. A link that watches what goes through it takes
down the array before each receive and at the end. Steps are those of the cost model: a rank sends
one message and receives one at a time, and each takes one step; so there are as many steps as the
formula in `cost` has α.

    chunk 2 on rank 0 is 9 = 2^0 + 2^3:  the parts of ranks 0 and 3 are in it, written as  0..3

With each part goes, in higher bits that add up too, the number of the chunk: so it is known of
every message which chunks are in it, wherever the algorithm has put them meanwhile.

Letters: p ranks, r a rank, c a chunk, q a rank whose part may be in a chunk, t a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array
from minipar.comm.algorithms import Choice, pick
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.errors import UsageError
from minipar.testing.clock import ClockLink

MOST_RANKS = 8  # more could not be read
WHOLE = ("broadcast", "reduce", "all_reduce")  # called with an array; the others with cuts, too
OWN_PIECE = ("gather", "all_gather")  # rank r comes with piece r alone
REDUCING = ("reduce", "all_reduce", "reduce_scatter")
SHOWN = (*WHOLE, *OWN_PIECE, "reduce_scatter")
TOLD = (*SHOWN, "scatter", "all_to_all")  # of which a `Story` can be told
TAG = 16  # from this bit on is the number of the chunk, plus 1, of each part
PARTS = (1 << TAG) - 1


class Move(NamedTuple):
    """A chunk that has come to a rank."""

    src: int
    dst: int
    chunk: int


class Snapshot(NamedTuple):
    """All chunks of all ranks after one step."""

    title: str  # "start", "step 1: add", "step 4: copy"
    parts: np.ndarray  # int64 [ranks, chunks]: bit q is set if rank q's part is in the chunk
    complete: np.ndarray  # bool [ranks, chunks]: all that belongs into the chunk is in it
    moves: tuple[Move, ...]  # what came in this step; empty at the start
    added: bool  # whether something that came was added, and not only copied


def chunk_snapshots(op: str, algorithm: Choice, ranks: int) -> list[Snapshot]:
    """Run a collective on so many ranks, with a chunk for each; the states that it goes through.

    op:        broadcast, reduce, all_reduce, gather, all_gather or reduce_scatter, with root 0.
    algorithm: as in the calls of `Group`: a name, or a function of your own.
    Raises:    UsageError for other calls, and above 8 ranks.
    """
    if op not in SHOWN:
        raise UsageError(f"the chunks of {op} cannot be shown")
    if not 1 <= ranks <= MOST_RANKS:
        raise UsageError(f"chunks are shown for 1 to {MOST_RANKS} ranks, not {ranks}.")
    logs = [log for log, _ in run(_watch, ranks, args=(op, algorithm))]
    steps = max(receipt.step for log in logs for receipt in log)
    return [_snapshot(op, logs, t) for t in range(steps + 1)]


def states_by_message(op: str, algorithm: Choice, ranks: int) -> list[list[np.ndarray]]:
    """For each rank, its chunks at the start and after each message that has come to it.

    An entry is int64 [chunks]: bit q is set if rank q's part is in the chunk.  Raises: UsageError.
    """
    if op not in SHOWN:
        raise UsageError(f"the chunks of {op} cannot be shown")
    logs = run(_watch, ranks, args=(op, algorithm))
    return [[receipt.state for receipt in log] for log, _ in logs]


class Story(NamedTuple):
    """What a collective is like for one rank."""

    states: list[np.ndarray]  # its chunks at the start, and after each message that has come
    sent: list[tuple[int, list[int]]]  # each message: to whom, and the chunks that are in it
    got: list[tuple[int, list[int]]]  # from whom


def stories(op: str, algorithm: Choice, ranks: int) -> list[Story]:
    """The story of each rank, of all in TOLD.

    What is only copied is there as soon as it has come, wherever the algorithm keeps it. Of
    all_to_all, chunk c is what comes from rank c.  Raises: UsageError.
    """
    if op not in TOLD:
        raise UsageError(f"the chunks of {op} cannot be shown")
    return [
        Story([r.state for r in log], sent, [(r.src, r.chunks) for r in log[1:]])
        for log, sent in run(_watch, ranks, args=(op, algorithm, op not in REDUCING))
    ]


def chunk_text(snapshots: Sequence[Snapshot]) -> str:
    """The snapshots as text: > has just arrived, [ ] is complete."""
    return "\n\n".join(map(_table, snapshots))


# -- taking the snapshots ---------------------------------------------------------------------


class _Receipt(NamedTuple):
    """The array of one rank after a message has come."""

    step: int
    src: int  # -1 at the start, when nothing has
    chunks: list[int]  # that were in the message
    state: np.ndarray
    added: bool


class _WatchedLink:
    """A link that takes down its rank's array after each message that comes."""

    def __init__(self, group: Group, buf: Array) -> None:
        self.rank, self.size = group.rank, group.size
        self.log: list[_Receipt] = []
        self.sent: list[tuple[int, list[int]]] = []
        self._clock, self._buf = ClockLink(group), buf
        self._came: tuple[int, int, list[int]] = (0, -1, [])
        self._added = False

    def take_down(self) -> None:
        self.log.append(_Receipt(*self._came, self._buf & PARTS, self._added))

    def send(self, array: Array, dst: int) -> None:
        self.sent.append((dst, _chunks_in(array)))
        self._clock.send(array, dst)

    def recv(self, src: int) -> Array:
        self.take_down()
        return self._noted(self._clock.recv(src), src)

    def sendrecv(self, array: Array, dst: int, src: int) -> Array:
        self.take_down()
        self.sent.append((dst, _chunks_in(array)))
        return self._noted(self._clock.sendrecv(array, dst, src), src)

    def add(self, into: Array, array: Array) -> None:
        self._clock.add(into, array)
        self._added = True

    def _noted(self, array: Array, src: int) -> Array:
        self._came = int(self._clock.received_until[0]), src, _chunks_in(array)
        self._added = False
        return array


class _KeepingLink(_WatchedLink):
    """One that puts what comes into the array at once."""

    def _noted(self, array: Array, src: int) -> Array:
        for value in np.unique(array):
            for c in _chunks_in(value):
                self._buf[c] = value
        return super()._noted(array, src)


def _chunks_in(array: Array) -> list[int]:
    """The numbers of the chunks that are in a message."""
    values = [v for v in map(int, np.unique(array)) if v & PARTS]
    return sorted({(v >> TAG) // (v & PARTS).bit_count() - 1 for v in values})


def _watch(
    group: Group, op: str, algorithm: Choice, keeping: bool = False
) -> tuple[list[_Receipt], list[tuple[int, list[int]]]]:
    """What one rank's array holds at the start and after each message; what the rank has sent."""
    p, r = group.size, group.rank
    own = (1 << r) + (np.arange(1, p + 1) << TAG)  # this rank's part of each chunk
    buf = np.zeros(p, np.int64)
    if op in REDUCING or (op in ("broadcast", "scatter") and r == 0):
        buf[:] = own
    elif op in (*OWN_PIECE, "all_to_all"):
        buf[r] = own[r]
    link = (_KeepingLink if keeping else _WatchedLink)(group, buf)
    more: list[Any] = [] if op in WHOLE else [range(p + 1)]
    given = buf
    if op == "all_to_all":  # here row c is what comes from rank c, so all rows have its number
        given, more = np.full((p, 1), own[r]), [buf.reshape(p, 1)]
    _, function = pick(op, algorithm, buf.nbytes, p, group.backend)
    function(link, given, *more)
    link.take_down()
    return link.log, link.sent


def _snapshot(op: str, logs: list[list[_Receipt]], t: int) -> Snapshot:
    p, added, moves = len(logs), False, []
    parts = np.empty((p, p), np.int64)
    for r, log in enumerate(logs):
        before = log[0].state
        for receipt in log:
            if receipt.step == t and t:
                came = np.flatnonzero(receipt.state != before)
                moves += [Move(receipt.src, r, int(c)) for c in came]
                added |= receipt.added
            if receipt.step <= t:
                before = receipt.state
        parts[r] = before
    whole = {"broadcast": 1, "gather": 1 << np.arange(p), "all_gather": 1 << np.arange(p)}
    complete = parts == whole.get(op, (1 << p) - 1)
    title = f"step {t}: {'add' if added else 'copy'}" if t else "start"
    return Snapshot(title, parts, complete, tuple(moves), added)


# -- text -------------------------------------------------------------------------------------


def _table(snapshot: Snapshot) -> str:
    p = len(snapshot.parts)
    width = max(9, p + 4)
    lines = [snapshot.title, " " * 8 + "".join(f"chunk {c}".rjust(width) for c in range(p))]
    for r in range(p):
        cells = [_cell_text(snapshot, r, c).rjust(width) for c in range(p)]
        lines.append(f"  rank {r}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def _cell_text(snapshot: Snapshot, r: int, c: int) -> str:
    p, parts = len(snapshot.parts), int(snapshot.parts[r, c])
    text = "".join(str(q) if parts >> q & 1 else "." for q in range(p))
    text = f"[{text}]" if snapshot.complete[r, c] else f" {text} "
    came = any((move.dst, move.chunk) == (r, c) for move in snapshot.moves)
    return (">" if came else "") + text
