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

An array that the others can reach where it lies (`reach`) is not copied: the note says where that
is. Messages do the same with large arrays (`loans`). What is shown to whom, and when, is in
`circle`.

Order of stores: as in `byte_ring`; a note is complete before its number is there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from errno import ESRCH
from functools import lru_cache, partial
from itertools import permutations
from zlib import crc32

import numpy as np

from minipar.comm.board import Board
from minipar.comm.frame import SITE_BYTES, Call
from minipar.comm.heap import Heap
from minipar.comm.reach import (
    Doorplate,
    Mapped,
    Private,
    Vanished,
    address_of,
    can_read,
    is_ordinary,
)
from minipar.comm.segment import CELL_BYTES, SLOTS, Segment, slot_bytes
from minipar.comm.transport import never_taken
from minipar.comm.wiring import Compare, Window
from minipar.errors import CallMismatch, CommError

CELL = CELL_BYTES // 8  # words of a cell: two notes (number, place, call), `taken`, then `loans`
PLACE, WORD, TAKEN = 1, 2, 6
REACHED, MOST_REACHED = 3, 64  # in a rank's cell for itself, after its Doorplate
NOWHERE = SLOTS  # as a place: nothing is shown; below: a slot; above: + where the array lies
ADDRESS = 1 << 62  # in a `where`: it lies in private memory
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
        self.heap, self.spins, self.yields, self.wait = heap, spins, YIELDS, wait
        self.cells = segment.cells().cast("Q")
        self.uses = [0] * len(here)  # so far, with each rank of the host
        self.slot_bytes = slot_bytes(len(here))
        self._stages = [np.frombuffer(segment.stage(i), np.uint8) for i in range(len(here))]
        self._next_slot = 0
        self._readers: list[list[tuple[int, int, int]]] = [[] for _ in range(SLOTS)]
        self._views: dict[tuple[int, int, int, np.dtype], np.ndarray] = {}
        self._plate = Doorplate()
        own = self._own_cell(self.place)
        self.cells[own], self.cells[own + 1], self.cells[own + 2] = self._plate.words
        self.reports = False  # whether the end of another rank is not the job's (`losses`)
        self.vanished: set[int] = set()  # then: world ranks that are lost, until they return
        self._tried: set[int] = set()
        self._trying = threading.Lock()
        self.check: Callable[[Call], None] = lambda call: None  # raises if the job has failed
        # Notes that a root did not wait for: by place, the use, the call's number, who compares.
        self.unseen: dict[int, tuple[int, int, Compare]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array that all ranks of the host can reach.  Raises: SharedMemoryFull."""
        return self.heap.empty(shape, dtype)

    # -- arrays that are reached where they lie -------------------------------------------------

    def where(self, array: np.ndarray, private: bool) -> int:
        """A word that tells others where the array lies: 1 + its place in the heap, or (if private
        memory may be reached) its address in this process; 0 if they cannot reach it.
        """
        if not array.flags.c_contiguous:
            return 0
        place = self.heap.place_of(array)
        if place is not None:
            return 1 + place
        return ADDRESS | address_of(array) if private and is_ordinary(array) else 0

    def window(self, at: int, where: int, nbytes: int, dtype: np.dtype, call: Call) -> Window:
        """The array of the rank at that place of the host, for which its `where` is this."""
        rank = self.here[at]

        def moved() -> None:
            self.board.fetched_some(self.rank)  # or seconds of it would look like a deadlock
            self.check(call)

        if where < ADDRESS:
            return Mapped(self.heap.view(at, where - 1, nbytes, dtype), moved)
        pid = self.cells[self._own_cell(at)]
        return Private(pid, where - ADDRESS, dtype, moved, partial(self._lost, rank, call))

    def _lost(self, rank: int, call: Call, error: OSError) -> None:
        """The memory of that rank cannot be reached, so wait for the news of its end."""
        if error.errno == ESRCH and self.reports:
            raise Vanished
        if error.errno == ESRCH:
            self.wait(lambda: False, rank, call)
        raise CommError(
            f"rank {self.rank}, {call}: the memory of rank {rank} cannot be reached any more: "
            f"{error.strerror}"
        )

    def try_to_reach(self, at: int) -> None:
        """Find out whether this rank can read the private memory of the one at that place."""
        with self._trying:
            if at not in self._tried and at < MOST_REACHED:
                plate = self._own_cell(at)
                pid, address, number = self.cells[plate : plate + REACHED]
                can = can_read((pid, address, number))
                self.cells[self._own_cell(self.place) + REACHED] |= can << at
                self._tried.add(at)

    def reaches(self, a: int, b: int) -> bool:
        """Whether the rank at place a has found out that it can read the memory of that at b."""
        return bool(self.cells[self._own_cell(a) + REACHED] >> b & 1)

    def _own_cell(self, at: int) -> int:
        """The cell of a rank for itself: its Doorplate, and whom it reaches, one bit each."""
        return (at * len(self.here) + at) * CELL

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
        self.wait(lambda: cells[cell] >= number, rank, call)


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
