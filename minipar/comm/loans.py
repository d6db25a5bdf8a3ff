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
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minipar.comm.exchange import ADDRESS, CELL, Exchange
from minipar.comm.frame import Call, Header
from minipar.comm.reach import Vanished
from minipar.comm.wiring import Window

FETCHED, OFFER, INTO, FRONT, BACK, DONE = 7, 8, 9, 10, 11, 12  # words of a cell
LENT_BYTES = 8 << 20  # from here on, private arrays are sent by saying where they lie
PIECE_BYTES = 2 << 20
BUSY_S = 1e-4  # between two looks whether a piece is copied
MOST_PIECES = (1 << 32) - 1


class Loan(NamedTuple):
    """An array that has been lent to rank dst of the world."""

    array: np.ndarray
    where: int
    dst: int
    over: Callable[[], bool]  # whether the array need not be kept any more
    help: Callable[[], bool]  # whether dst has fetched it; lends a hand if asked to
    helper: _Helper

    @property
    def private(self) -> bool:
        """Whether the array goes when this process ends."""
        return self.where >= ADDRESS


class Loans:
    """What one rank has lent to others, and what it fetches from them."""

    def __init__(self, shared: Exchange) -> None:
        self.shared = shared
        self._lent = [0] * len(shared.here)  # arrays so far, to each of them
        self._fence = threading.Lock()
        # Arrays that must live until they are fetched, by the receiver's place and their number.
        self.open: dict[tuple[int, int], Loan] = {}
        self._filled: np.ndarray | None = None  # which the sender may be writing into

    def lend(self, array: np.ndarray, dst: int, call: Call) -> Loan | None:
        """Let rank dst fetch the array from where it lies; None if it cannot."""
        shared = self.shared
        for key, loan in list(self.open.items()):
            if loan.over():
                self.open.pop(key, None)
        if dst not in shared.here:
            return None
        at = shared.here.index(dst)
        private = array.nbytes >= LENT_BYTES and shared.reaches(at, shared.place)
        where = shared.where(array, private)
        if not where:
            return None
        self._lent[at] += 1
        number, cell, cells = self._lent[at], self.cell(at, shared.place), shared.cells
        helper = _Helper(self, array, at, number, call)

        def over() -> bool:
            return helper.lost or cells[cell + FETCHED] >= number

        loan = Loan(array, where, dst, over, helper.help, helper)
        self.open[at, number] = loan
        return loan

    def fetch(self, src: int, header: Header, into: np.ndarray) -> None:
        """Fill `into` from the memory of rank src, and tell it."""
        shared, call = self.shared, header.call
        at = shared.here.index(src)
        ours, flat = self.cell(shared.place, at), into.reshape(-1)
        number = shared.cells[ours + FETCHED] + 1
        window = shared.window(at, header.place, into.nbytes, into.dtype, call)
        if cut(flat)[0] > 1:
            self._filled = into
            self._fetch_together(at, number, window, flat, call)
            self._filled = None
        else:
            window.fetch(0, flat)
        shared.cells[ours + FETCHED] = number

    def _fetch_together(
        self, at: int, number: int, window: Window, flat: np.ndarray, call: Call
    ) -> None:
        """Offer the sender, at that place of the host, to help, and take pieces from the front."""
        shared, cells, front = self.shared, self.shared.cells, 0
        ours, theirs = self.cell(shared.place, at), self.cell(at, shared.place)
        pieces, step = cut(flat)

        def taken(word: int) -> int:
            """How many pieces the sender has taken, or copied."""
            back = cells[theirs + word]
            return back & MOST_PIECES if back >> 32 == number else 0

        cells[ours + INTO], cells[ours + FRONT] = shared.where(flat, True), 0
        cells[ours + OFFER] = number
        while front + taken(BACK) < pieces:
            cells[ours + FRONT] = front = front + 1
            window.fetch((front - 1) * step, flat[(front - 1) * step : front * step])
        cells[ours + OFFER] = 0
        self.fence()
        if taken(BACK) != taken(DONE):
            sender = shared.here[at]
            shared.wait(
                lambda: taken(BACK) == taken(DONE) or sender in shared.vanished, sender, call
            )
        for piece in range(front, pieces - taken(DONE)):
            window.fetch(piece * step, flat[piece * step : (piece + 1) * step])

    def forget(self, rank: int) -> None:
        """That rank is lost: nothing is lent to it any more, and the cells are as for a new one.

        Numbers of its loans go on, because this rank's other thread may just be helping with one.
        """
        shared = self.shared
        at = shared.here.index(rank)
        for key in [key for key in list(self.open) if key[0] == at]:
            if (loan := self.open.pop(key, None)) is not None:
                loan.helper.lose()
        ours, theirs = self.cell(shared.place, at), self.cell(at, shared.place)
        for word in (FETCHED, OFFER, INTO, FRONT):
            shared.cells[ours + word] = shared.cells[theirs + word] = 0
        shared.cells[theirs + FETCHED] = self._lent[at]
        shared.cells[theirs + BACK] = shared.cells[theirs + DONE] = 0

    def cell(self, a: int, b: int) -> int:
        return (a * len(self.shared.here) + b) * CELL

    def fence(self) -> None:
        """What this rank wrote before is in memory before it reads what it reads after."""
        with self._fence:
            pass


class _Helper:
    """The sender's side of a loan."""

    def __init__(self, loans: Loans, array: np.ndarray, at: int, number: int, call: Call) -> None:
        """at: the receiver's place on the host.  number: the loan's."""
        shared = loans.shared
        self._loans, self._shared, self._flat = loans, shared, array.reshape(-1)
        self._at, self._number, self._call = at, number, call
        self._ours, self._theirs = loans.cell(shared.place, at), loans.cell(at, shared.place)
        self._pieces, self._step = cut(self._flat)
        self._taken = 0
        self.lost = self._busy = False

    def help(self) -> bool:
        """Copy a piece, if the receiver offers that; whether all of it is fetched."""
        self._busy = True
        try:
            if not self.lost:
                self._copy_a_piece()
        except Vanished:
            return False
        finally:
            self._busy = False
        fetched = self._shared.cells[self._theirs + FETCHED] >= self._number
        if self.lost or not fetched:  # in this order: `forget` writes there, too
            return False
        self._loans.open.pop((self._at, self._number), None)
        return True

    def lose(self) -> None:
        """The receiver is lost; return when nothing is being written into its array."""
        self.lost = True
        while self._busy:
            time.sleep(BUSY_S)

    def _copy_a_piece(self) -> None:
        cells, number = self._shared.cells, self._number
        if self._offered() and self._reaches():
            piece = self._taken + 1
            cells[self._ours + BACK] = number << 32 | piece
            self._loans.fence()
            if self._offered():
                self._write(piece)
                self._taken = piece
                cells[self._ours + DONE] = number << 32 | piece
            else:
                cells[self._ours + BACK] = number << 32 | self._taken

    def _offered(self) -> bool:
        """Whether there is a piece left that the receiver has not taken."""
        cells, theirs = self._shared.cells, self._theirs
        left = self._pieces - self._taken
        return cells[theirs + OFFER] == self._number and cells[theirs + FRONT] < left

    def _reaches(self) -> bool:
        """Whether this rank can write into the receiver's array."""
        where = self._shared.cells[self._theirs + INTO]
        if where < ADDRESS:
            return where > 0
        self._shared.try_to_reach(self._at)
        return self._shared.reaches(self._shared.place, self._at)

    def _write(self, piece: int) -> None:
        """The piece of that number from the back."""
        flat, start = self._flat, (self._pieces - piece) * self._step
        where = self._shared.cells[self._theirs + INTO]
        window = self._shared.window(self._at, where, flat.nbytes, flat.dtype, self._call)
        window.write(start, flat[start : start + self._step])


def cut(flat: np.ndarray) -> tuple[int, int]:
    """Into how many pieces, and the elements of one."""
    step = max(1, PIECE_BYTES // flat.itemsize)
    return -(-len(flat) // step), step
