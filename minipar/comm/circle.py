"""The ranks of a group that have memory in common, and show each other arrays in it.

    show       everybody's part to everybody        exchange   to each rank the piece for it
    show_from  the root's array to everybody        windows    the arrays themselves, if all can be
                                                               reached: nothing is copied

Each of these posts a note for every other rank and waits for theirs. `exchange.py` has the picture:
stages with two slots, cells with two notes, and what is taken.

Letters: r the own rank in the group, i another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from minipar.comm.exchange import CELL, NOWHERE, PLACE, TAKEN, WORD, Exchange, number_of
from minipar.comm.frame import Call
from minipar.comm.reach import Mapped
from minipar.comm.segment import SLOTS
from minipar.comm.wiring import Compare, Note, Window
from minipar.errors import CommError

LINE = 64  # pieces in a slot begin at cache lines


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

    def __init__(self, shared: Exchange, ranks: tuple[int, ...], circles: Circles) -> None:
        """ranks: world ranks in group order.  circles: all that the own rank is in."""
        self._circles = circles
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
        self._reaches: bool | None = None  # not known yet
        self._held: np.ndarray | None = None  # which others may be reading or writing

    def enter(self, call: Call, note: Note | None, compare: Compare) -> None:
        self._call, self._note, self._compare = call, note, compare
        self._word = number_of(call)

    def among(self, order: Sequence[int]) -> Circle | None:
        """The same call among some of these ranks, or in another order."""
        circle = self._circles.of([self._ranks[i] for i in order])
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
        if self._note is not None:
            self.tell([mine.nbytes] * len(parts), [part.nbytes for part in parts])
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
            self.tell([nbytes] * len(self._ranks), [0] * len(self._ranks))
            for peer in self._peers:
                use = shared.uses[peer.place]
                shared.unseen[peer.place] = (use, self._word, self._compare)
            return array
        self.tell([0] * len(self._ranks), [nbytes * (i == root) for i in range(len(self._ranks))])
        peer = next(peer for peer in self._peers if peer.number == root)
        self._post(NOWHERE, [peer])
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
        self.tell([piece.nbytes for piece in pieces], [mine.nbytes] * len(pieces))
        seen = list(pieces)
        for peer in self._peers:
            index = peer.number
            skipped = _padded(pieces[index]) if index < self._index else 0  # its own, not staged
            start = self._posted(peer) * self.room + starts[self._index] - skipped
            seen[index] = shared.view(peer.place, start, mine.nbytes, mine.dtype)
        return seen

    def windows(self, array: np.ndarray, private: bool = False) -> list[Window] | None:
        """Every rank's array itself, to be read and written; None if not all can be reached.

        private: whether to reach into private memory, too; the same on every rank.
        After it, `meet` before anybody may take the own array for complete, or change it.
        """
        shared = self._shared
        if private and self._reaches is None:
            self._reaches = self._try_to_reach()
        where = shared.where(array, private and bool(self._reaches))
        self.release()
        self._held = array
        self._post(NOWHERE + where)
        places = [self._posted(peer) for peer in self._peers]
        if not where or NOWHERE in places:
            self._held = None
            return None
        windows: list[Window] = [Mapped(array, _no_news)] * len(self._ranks)
        for peer, place in zip(self._peers, places, strict=True):
            windows[peer.number] = shared.window(
                peer.place, place - NOWHERE, array.nbytes, array.dtype, self._call
            )
        return windows

    def _try_to_reach(self) -> bool:
        """Whether every rank can reach into the private memory of every other one."""
        shared = self._shared
        self.meet()  # now all have their doorplates up
        for peer in self._peers:
            shared.try_to_reach(peer.place)
        self.meet()
        places = [shared.place, *(peer.place for peer in self._peers)]
        return all(shared.reaches(a, b) for a, b in permutations(places, 2))

    def tell(self, sent: Sequence[int], got: Sequence[int]) -> None:
        """Leave records of messages: the bytes that went to each rank, and came from it, if any."""
        if self._note is not None:
            for peer in self._peers:
                self._note(peer.rank, sent[peer.number], got[peer.number])

    def meet(self) -> None:
        """Return once every rank has got here."""
        self.release()
        self._post(NOWHERE)
        for peer in self._peers:
            self._posted(peer)
        self._held = None

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
            if cells[theirs + TAKEN] + 2 < use:  # a root may be two notes ahead of its readers
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
        theirs = next((call for call in reversed(last) if number_of(call) == word), None)
        if theirs is None:
            raise CommError(f"rank {peer.rank} is in another call than {self._call}")
        return theirs


class Circles:
    """The circles of one rank, each made once."""

    def __init__(self, shared: Exchange) -> None:
        self._shared = shared
        self._made: dict[tuple[int, ...], Circle] = {}

    def of(self, ranks: Sequence[int]) -> Circle | None:
        """These world ranks, in this order; None if one of them lives on another host."""
        ranks = tuple(ranks)
        if not set(ranks) <= set(self._shared.here):
            return None
        if ranks not in self._made:
            self._made[ranks] = Circle(self._shared, ranks, self)
        return self._made[ranks]


def _no_news() -> None:
    """Of a rank's own array, there is nothing to tell."""


def _never(rank: int, theirs: Call) -> None:
    raise AssertionError("no call has been entered")


def _padded(array: np.ndarray) -> int:
    return -(-array.nbytes // LINE) * LINE
