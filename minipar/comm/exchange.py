"""Showing arrays to the other ranks of a host, instead of sending them.

Every rank has a stage in shared memory, with two slots, and a cell for each other rank. To show
something it copies it into a slot and posts a note in the cells of those who shall read it; they
read it where it lies. Meanwhile it may already fill its other slot.

    rank a                                                     rank b
    slot 0 or 1 <- array
    cell a->b:  use 7, slot 1, which call  ---------------->   waits until use 7 is posted,
                                                               reads a's slot 1
    use 7 is taken? then its slot is free  <----------------   cell b->a:  taken 7

Each pair of ranks counts its uses on both sides alike, since all ranks make the same calls in the
same order. A note names the call (as a number), so whoever makes another call is found out. Uses 7
and 8 have places of their own in the cell, because a may post 8 before b has looked at 7; 9 waits
until 7 is taken.

An array that lies in memory that all can reach anyway (`heap`) is not copied: the note says where
it is (`Circle.windows`). Messages do the same with large arrays that lie there (`lend`, `fetch`).

Order of stores: as in `byte_ring`; a note is complete before its number is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple
from zlib import crc32

import numpy as np

from minipar.comm.board import Board
from minipar.comm.frame import SITE_BYTES, Call
from minipar.comm.heap import Heap
from minipar.comm.segment import CELL_BYTES, SLOTS, Segment, slot_bytes
from minipar.comm.transport import never_taken
from minipar.comm.wiring import Compare, Note
from minipar.errors import CallMismatch, CommError

CELL = CELL_BYTES // 8  # words of a cell: two notes (number, place, call), then `taken`
PLACE, WORD, TAKEN, FETCHED = 1, 2, 6, 7
PRIVATE = SLOTS  # as a place: nothing is shown; below: a slot; above: where in the heap
FETCH_BYTES = 16 << 20  # of a message, before the board is told that it goes on
LINE = 64  # pieces in a slot begin at cache lines
SPINS = 1000  # looks at a cell before its core is offered to others: some 50 µs
YIELDS = 200  # looks at a cell after that, before the wait becomes a patient one
KEPT_VIEWS = 4096
Wait = Callable[[Callable[[], bool], int, Call], None]


class Exchange:
    """One rank's stage, its notes to and from all ranks of the host, and its heap."""

    def __init__(
        self, segment: Segment, heap: Heap, here: Sequence[int], rank: int, wait: Wait, spins: int
    ) -> None:
        """here: the world ranks of this host.  wait: a transport's.  spins: 0 if cores are few."""
        self.here, self.rank, self.place = tuple(here), rank, here.index(rank)
        self.board: Board = segment.board()
        self.heap, self.spins, self.yields, self._wait = heap, spins, YIELDS, wait
        self.cells = segment.cells().cast("Q")
        self.uses = [0] * len(here)  # so far, with each rank of the host
        self._lent = [0] * len(here)  # arrays so far, to each of them
        self.slot_bytes = slot_bytes(len(here))
        self._stages = [np.frombuffer(segment.stage(i), np.uint8) for i in range(len(here))]
        self._next_slot = 0
        self._readers: list[list[tuple[int, int, int]]] = [[] for _ in range(SLOTS)]
        self._views: dict[tuple[int, int, int, np.dtype], np.ndarray] = {}
        # Notes that a root did not wait for: by place, the use, the call's number, who compares.
        self.unseen: dict[int, tuple[int, int, Compare]] = {}
        self._circles: dict[tuple[int, ...], Circle] = {}

    def circle(self, ranks: Sequence[int]) -> Circle | None:
        """These world ranks, in this order, as a circle; None if one lives on another host."""
        ranks = tuple(ranks)
        if not set(ranks) <= set(self.here):
            return None
        if ranks not in self._circles:
            self._circles[ranks] = Circle(self, ranks)
        return self._circles[ranks]

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array that all ranks of the host can reach.  Raises: SharedMemoryFull."""
        return self.heap.empty(shape, dtype)

    # -- messages whose payload lies in the sender's heap --------------------------------------

    def lend(self, array: np.ndarray, dst: int) -> tuple[int, Callable[[], bool]] | None:
        """Where the array lies, and what tells that rank dst has fetched it; None if it cannot."""
        place = self.heap.place_of(array) if array.flags.c_contiguous else None
        if place is None or dst not in self.here:
            return None
        at = self.here.index(dst)
        cells, cell = self.cells, (at * len(self.here) + self.place) * CELL + FETCHED
        self._lent[at] += 1
        number = self._lent[at]
        return place, lambda: cells[cell] >= number

    def fetch(self, src: int, place: int, into: np.ndarray) -> None:
        """Fill `into` from the heap of rank src, and tell it."""
        at = self.here.index(src)
        target = into.reshape(-1)
        array = self.heap.view(at, place, into.nbytes, into.dtype)
        step = max(1, FETCH_BYTES // into.itemsize)
        for start in range(0, len(target), step):
            target[start : start + step] = array[start : start + step]
            self.board.fetched_some(self.rank)  # or seconds of it would look like a deadlock
        self.cells[(self.place * len(self.here) + at) * CELL + FETCHED] += 1

    # -- stages ---------------------------------------------------------------------------------

    def view(self, place: int, start: int, nbytes: int, dtype: np.dtype) -> np.ndarray:
        """A flat array in the stage of the rank at that place of the host."""
        key = place, start, nbytes, dtype
        view = self._views.get(key)
        if view is None:
            if len(self._views) >= KEPT_VIEWS:
                self._views.clear()
            view = self._views[key] = self._stages[place][start : start + nbytes].view(dtype)
        return view

    def free_slot(self, call: Call) -> int:
        """The next slot, once all have read what was last in it."""
        slot = self._next_slot
        self._next_slot = (slot + 1) % SLOTS
        for rank, cell, use in self._readers[slot]:
            if self.cells[cell] < use:
                self.wait_until(cell, use, rank, call)
        return slot

    def note_readers(self, slot: int, readers: list[tuple[int, int, int]]) -> None:
        """(world rank, cell of its `taken`, use) of all who may read the slot."""
        self._readers[slot] = readers

    def wait_until(self, cell: int, number: int, rank: int, call: Call) -> None:
        """Wait until that cell, which that rank writes, has reached the number."""
        cells = self.cells
        for _ in range(self.spins):
            if cells[cell] >= number:
                return
        for _ in range(self.yields):
            os.sched_yield()
            if cells[cell] >= number:
                return
        self._wait(lambda: cells[cell] >= number, rank, call)


class _Peer(NamedTuple):
    """Another rank of the circle."""

    number: int  # in the group
    rank: int  # in the world
    place: int  # on the host
    ours: int  # where our cell for it begins
    theirs: int  # where its cell for us begins


class Circle:
    """The ranks of a group that all live on this host, as one of them sees them.

    All of them make the same calls of these methods in the same order. What a method returns may be
    read until the next call of one of them; `release` is the last of a collective.
    """

    def __init__(self, shared: Exchange, ranks: tuple[int, ...]) -> None:
        """ranks: world ranks in group order."""
        self._shared, self._ranks, self._index = shared, ranks, ranks.index(shared.rank)
        me, p = shared.place, len(shared.here)
        self._peers: list[_Peer] = []
        for index, rank in enumerate(ranks):
            if rank != shared.rank:
                at = shared.here.index(rank)
                ours, theirs = (me * p + at) * CELL, (at * p + me) * CELL
                self._peers.append(_Peer(index, rank, at, ours, theirs))
        self.room = shared.slot_bytes  # bytes that can be shown at once
        self._call, self._word = Call(0, 0, "", "", ""), 0
        self._note: Note | None = None
        self._compare: Compare = _never

    def enter(self, call: Call, note: Note | None, compare: Compare) -> None:
        self._call, self._note, self._compare = call, note, compare
        self._word = _number(call)

    def among(self, order: Sequence[int]) -> Circle | None:
        """The same call among some of these ranks, or in another order."""
        circle = self._shared.circle([self._ranks[i] for i in order])
        if circle is not None:
            circle.enter(self._call, self._note, self._compare)
        return circle

    def show(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """A copy of every rank's own part, in group order.

        parts: one for each rank, flat; part i has the same length on every rank.
        """
        shared, mine = self._shared, parts[self._index]
        dtype = mine.dtype
        self.release()
        slot = shared.free_slot(self._call)
        own = shared.view(shared.place, slot * self.room, mine.nbytes, dtype)
        own[...] = mine
        self._post(slot)
        seen = [own] * len(parts)
        self._tell(mine.nbytes)
        for peer in self._peers:
            start, number = self._posted(peer) * self.room, peer[0]
            seen[number] = shared.view(peer[2], start, parts[number].nbytes, dtype)
        return seen

    def show_from(self, root: int, array: np.ndarray) -> np.ndarray:
        """The root's array on every rank; the root goes on without waiting for the others."""
        shared, nbytes, dtype = self._shared, array.nbytes, array.dtype
        self.release()
        if root == self._index:
            slot = shared.free_slot(self._call)
            shared.view(shared.place, slot * self.room, nbytes, dtype)[...] = array
            self._post(slot)
            self._tell(nbytes)
            for peer in self._peers:
                use = shared.uses[peer.place]
                shared.unseen[peer.place] = (use, self._word, self._compare)
            return array
        peer = next(peer for peer in self._peers if peer.number == root)
        self._post(PRIVATE, [peer])
        return shared.view(peer.place, self._posted(peer) * self.room, nbytes, dtype)

    def exchange(self, pieces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """From every rank its piece for this one.

        pieces: one for each rank, flat; piece i has the same length on every rank.
        """
        shared, mine = self._shared, pieces[self._index]
        self.release()
        slot = shared.free_slot(self._call)
        starts = self._starts(pieces)
        for index, _, _, _, _ in self._peers:
            piece = pieces[index]
            start = slot * self.room + starts[index] - (index > self._index) * _padded(mine)
            shared.view(shared.place, start, piece.nbytes, piece.dtype)[...] = piece
        self._post(slot)
        if self._note is not None:
            for peer in self._peers:
                self._note(peer.rank, pieces[peer.number].nbytes)
        seen = list(pieces)
        for peer in self._peers:
            index = peer.number
            skipped = _padded(pieces[index]) if index < self._index else 0  # its own, not staged
            start = self._posted(peer) * self.room + starts[self._index] - skipped
            seen[index] = shared.view(peer.place, start, mine.nbytes, mine.dtype)
        return seen

    def windows(self, array: np.ndarray) -> list[np.ndarray] | None:
        """Every rank's array itself, to be read and written; None if one lies in private memory.

        After it, `meet` before anybody may take the own array for complete.
        """
        heap = self._shared.heap
        place = heap.place_of(array)
        self.release()
        self._post(PRIVATE if place is None else PRIVATE + 1 + place)
        places = [self._posted(peer) for peer in self._peers]
        if place is None or PRIVATE in places:
            return None
        seen = [array] * len(self._ranks)
        for peer, where in zip(self._peers, places, strict=True):
            start = where - PRIVATE - 1
            seen[peer.number] = heap.view(peer.place, start, array.nbytes, array.dtype)
        return seen

    def meet(self) -> None:
        """Return once every rank has got here."""
        self.release()
        self._post(PRIVATE)
        for peer in self._peers:
            self._posted(peer)

    def release(self) -> None:
        """Nothing that was shown so far will be read again."""
        shared = self._shared
        for peer in self._peers:
            taken = shared.uses[peer.place]
            if shared.unseen and peer.place in shared.unseen:
                taken -= not self._has_come(peer)
            shared.cells[peer.ours + TAKEN] = taken

    def _has_come(self, peer: _Peer) -> bool:
        """Whether the note that this rank, as a root, did not wait for is there by now, and right.

        Until then it must not be overwritten, so its use does not count as taken.
        """
        shared = self._shared
        use, word, compare = shared.unseen[peer.place]
        note = peer.theirs + 3 * (use & 1)
        if shared.cells[note] != use:
            return False
        del shared.unseen[peer.place]
        seen = shared.cells[note + WORD]
        if seen != word:
            compare(peer.rank, self._find(peer, seen))
        return True

    # -- notes --------------------------------------------------------------------------------

    def _tell(self, nbytes: int) -> None:
        if self._note is not None:
            for peer in self._peers:
                self._note(peer.rank, nbytes)

    def _starts(self, pieces: Sequence[np.ndarray]) -> list[int]:
        """Where in a slot each piece would begin if all were in it."""
        starts = [0]
        for piece in pieces:
            starts.append(starts[-1] + _padded(piece))
        return starts

    def _post(self, place: int, readers: Sequence[_Peer] | None = None) -> None:
        """A note for every other rank: the next use, where to look, and which call it is."""
        shared, word = self._shared, self._word
        cells, uses = shared.cells, shared.uses
        marks = []
        for _, rank, at, ours, theirs in self._peers if readers is None else readers:
            uses[at] = use = uses[at] + 1
            if cells[theirs + TAKEN] + 2 < use:
                shared.wait_until(theirs + TAKEN, use - 2, rank, self._call)
            note = ours + 3 * (use & 1)
            cells[note + PLACE] = place
            cells[note + WORD] = word
            cells[note] = use
            marks.append((rank, theirs + TAKEN, use))
        if place < SLOTS:
            shared.note_readers(place, marks)

    def _posted(self, peer: _Peer) -> int:
        """The place that the other rank has posted for the present use, once it has."""
        _, rank, at, _, theirs = peer
        shared = self._shared
        cells, use = shared.cells, shared.uses[at]
        note = theirs + 3 * (use & 1)
        if cells[note] != use:
            shared.wait_until(note, use, rank, self._call)
        if cells[note + WORD] != self._word:
            self._compare(rank, self._find(peer, cells[note + WORD]))
        return cells[note + PLACE]

    def _find(self, peer: _Peer, word: int) -> Call:
        """The call with that number, which the other rank is in, or was in not long ago."""
        last = self._shared.board.last(peer.place)
        theirs = next((call for call in reversed(last) if _number(call) == word), None)
        if theirs is None:
            raise CommError(f"rank {peer.rank} is in another call than {self._call}")
        return theirs


def _never(rank: int, theirs: Call) -> None:
    raise AssertionError("no call has been entered")


def left_in_cells(segment: Segment, ranks: int) -> CallMismatch | None:
    """The error if all ranks of the host have returned, and one was shown what it never looked for.

    Both of a pair post at every use, so their last notes have the same number and name one call.
    """
    cells, board = segment.cells().cast("Q"), segment.board()

    def last_note(a: int, b: int) -> tuple[int, int]:
        start = (a * ranks + b) * CELL
        return max((cells[note], cells[note + WORD] >> 32) for note in (start, start + 3))

    for a, b in permutations(range(ranks), 2):
        theirs, ours = last_note(a, b), last_note(b, a)
        if theirs > ours or (theirs[0] == ours[0] and theirs != ours):
            for call in board.last(a):
                if _number(call) >> 32 == theirs[1]:
                    return never_taken(b, a, call, board.did(b, call))
    return None


def _padded(array: np.ndarray) -> int:
    return -(-array.nbytes // LINE) * LINE


def _number(call: Call) -> int:
    """64 bits: above, those of the call and its sequence number; below, those of its site."""
    return (_numbers(call[0], call[2], call[3], call[4]) + (call[1] << 32)) & (1 << 64) - 1


@lru_cache(maxsize=1024)
def _numbers(group: int, op: str, signature: str, site: str) -> int:
    return crc32(f"{group} {op} {signature}".encode()) << 32 | crc32(site.encode()[-SITE_BYTES:])
