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
it is. Messages do the same with large arrays that lie there (`lend`, `fetch`). What is shown to
whom, and when, is in `circle`.

Order of stores: as in `byte_ring`; a note is complete before its number is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import permutations
from zlib import crc32

import numpy as np

from minipar.comm.board import Board
from minipar.comm.frame import SITE_BYTES, Call
from minipar.comm.heap import Heap
from minipar.comm.segment import CELL_BYTES, SLOTS, Segment, slot_bytes
from minipar.comm.transport import never_taken
from minipar.comm.wiring import Compare
from minipar.errors import CallMismatch

CELL = CELL_BYTES // 8  # words of a cell: two notes (number, place, call), then `taken`
PLACE, WORD, TAKEN, FETCHED = 1, 2, 6, 7
PRIVATE = SLOTS  # as a place: nothing is shown; below: a slot; above: where in the heap
FETCH_BYTES = 16 << 20  # of a message, before the board is told that it goes on
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
                if number_of(call) >> 32 == theirs[1]:
                    return never_taken(b, a, call, board.did(b, call))
    return None


def number_of(call: Call) -> int:
    """64 bits: above, those of the call and its sequence number; below, those of its site."""
    return (_numbers(call[0], call[2], call[3], call[4]) + (call[1] << 32)) & (1 << 64) - 1


@lru_cache(maxsize=1024)
def _numbers(group: int, op: str, signature: str, site: str) -> int:
    return crc32(f"{group} {op} {signature}".encode()) << 32 | crc32(site.encode()[-SITE_BYTES:])
