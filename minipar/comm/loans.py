"""Large messages whose payload is not sent: the receiver copies it from where it lies.

    the sender's array     [ 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 ]
                             the receiver -->   <-- the sender, if it waits in `send`

The header says where the array lies (`Exchange.where`). The receiver offers the sender to help: it
takes one piece after the other from the front, and a sender that waits takes them from the back.
Two cores copy twice as fast as one. If both take the same piece, both write the same bytes. At the
end the receiver withdraws its offer, waits until the sender is not in the midst of a piece, and
copies what is left. An array that was lent is not changed before all of it has been fetched.

Order: each side writes what it takes before it looks at the other's words, with a fence between
(Dekker's algorithm): so either the sender sees that the offer is withdrawn, or the receiver sees
that a piece is being copied.

Words of the cells are those of `exchange`: of the receiver's for the sender, FETCHED, OFFER, INTO
and FRONT; of the sender's for the receiver, BACK and DONE (each with the loan's number above).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minipar.comm.exchange import ADDRESS, CELL, Exchange
from minipar.comm.frame import Call, Header

FETCHED, OFFER, INTO, FRONT, BACK, DONE = 7, 8, 9, 10, 11, 12  # words of a cell
LENT_BYTES = 8 << 20  # from here on, private arrays are sent by saying where they lie
PIECE_BYTES = 2 << 20


class Loan(NamedTuple):
    """An array that has been lent to rank dst of the world."""

    array: np.ndarray
    where: int
    dst: int
    over: Callable[[], bool]  # whether dst has fetched it
    help: Callable[[], bool]  # the same, but lends a hand if asked to

    @property
    def private(self) -> bool:
        """Whether the array goes when this process ends."""
        return self.where >= ADDRESS


class Loans:
    """What one rank has lent to others, and what it fetches from them."""

    def __init__(self, shared: Exchange) -> None:
        self._shared = shared
        self._lent = [0] * len(shared.here)  # arrays so far, to each of them
        self._fence = threading.Lock()
        self.open: list[Loan] = []  # arrays that must live until they are fetched
        self._filled: np.ndarray | None = None  # which the sender may be writing into

    def lend(self, array: np.ndarray, dst: int, call: Call) -> Loan | None:
        """Let rank dst fetch the array from where it lies; None if it cannot."""
        shared = self._shared
        self.open = [loan for loan in self.open if not loan.over()]
        if dst not in shared.here:
            return None
        at = shared.here.index(dst)
        private = array.nbytes >= LENT_BYTES and shared.reaches(at, shared.place)
        where = shared.where(array, private)
        if not where:
            return None
        self._lent[at] += 1
        number, cell, cells = self._lent[at], self._cell(at, shared.place), shared.cells
        helper = _Helper(self, array, at, number, call)
        loan = Loan(array, where, dst, lambda: cells[cell + FETCHED] >= number, helper.help)
        self.open.append(loan)
        return loan

    def fetch(self, src: int, header: Header, into: np.ndarray) -> None:
        """Fill `into` from the memory of rank src, and tell it."""
        shared, call = self._shared, header.call
        at = shared.here.index(src)
        cells, ours = shared.cells, self._cell(shared.place, at)
        theirs, target = self._cell(at, shared.place), into.reshape(-1)
        number = cells[ours + FETCHED] + 1
        window = shared.window(at, header.place, into.nbytes, into.dtype, call)
        pieces, step = cut(target)

        def taken(word: int) -> int:
            """Pieces that the sender has taken, or copied."""
            back = cells[theirs + word]
            return back & 0xFFFFFFFF if back >> 32 == number else 0

        self._filled = into
        cells[ours + INTO], cells[ours + FRONT] = shared.where(into, True), 0
        cells[ours + OFFER] = number
        front = 0
        while front + taken(BACK) < pieces:
            cells[ours + FRONT] = front = front + 1
            window.fetch((front - 1) * step, target[(front - 1) * step : front * step])
        cells[ours + OFFER] = 0
        self.fence()
        if taken(BACK) != taken(DONE):
            shared.wait(lambda: taken(BACK) == taken(DONE), src, call)
        for piece in range(front, pieces - taken(DONE)):
            window.fetch(piece * step, target[piece * step : (piece + 1) * step])
        cells[ours + FETCHED] = number
        self._filled = None

    def _cell(self, a: int, b: int) -> int:
        return (a * len(self._shared.here) + b) * CELL

    def fence(self) -> None:
        """What was written before is to be seen by whoever writes after what is read after."""
        with self._fence:
            pass


class _Helper:
    """The sender's side of a loan, while it waits."""

    def __init__(self, loans: Loans, array: np.ndarray, at: int, number: int, call: Call) -> None:
        shared = loans._shared
        self._loans, self._shared, self._flat = loans, shared, array.reshape(-1)
        self._at, self._number, self._call = at, number, call
        self._ours, self._theirs = loans._cell(shared.place, at), loans._cell(at, shared.place)
        self._taken = 0

    def help(self) -> bool:
        """Copy a piece, if the receiver asks for it; whether all of it is fetched."""
        shared, cells = self._shared, self._shared.cells
        pieces, step = cut(self._flat)
        piece = self._taken + 1
        if self._wanted(piece, pieces) and self._reaches():
            cells[self._ours + BACK] = self._number << 32 | piece
            self._loans.fence()
            if self._wanted(piece, pieces):
                start = (pieces - piece) * step
                shared.window(
                    self._at,
                    cells[self._theirs + INTO],
                    self._flat.nbytes,
                    self._flat.dtype,
                    self._call,
                ).write(start, self._flat[start : start + step])
                self._taken = piece
                cells[self._ours + DONE] = self._number << 32 | piece
            else:
                cells[self._ours + BACK] = self._number << 32 | piece - 1
        return cells[self._theirs + FETCHED] >= self._number

    def _wanted(self, piece: int, pieces: int) -> bool:
        cells, theirs = self._shared.cells, self._theirs
        return cells[theirs + OFFER] == self._number and cells[theirs + FRONT] + piece <= pieces

    def _reaches(self) -> bool:
        where = self._shared.cells[self._theirs + INTO]
        if where >= ADDRESS:
            self._shared.try_to_reach(self._at)
            return self._shared.reaches(self._shared.place, self._at)
        return where > 0


def cut(flat: np.ndarray) -> tuple[int, int]:
    """Into how many pieces, and the elements of one."""
    step = max(1, PIECE_BYTES // flat.itemsize)
    return -(-len(flat) // step), step
