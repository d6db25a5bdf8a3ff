"""A circle of ranks that have no memory in common: what they would show each other, they send.

So algorithms that are written for shared memory (`direct`) run, and can be counted, anywhere.

Letters: p ranks, r own rank, i another one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from minipar.array import Array
from minipar.comm.wiring import Compare, Link, Note, Renumbered


class Messages:
    """The methods are those of `wiring.Circle`; each sends p-1 messages."""

    room = sys.maxsize  # everything can be sent at once

    def __init__(self, link: Link) -> None:
        self._link = link

    def show(self, parts: Sequence[Array]) -> list[Array]:
        mine = parts[self._link.rank]
        seen = self.exchange([mine] * self._link.size)
        seen[self._link.rank] = mine.copy()
        return seen

    def show_from(self, root: int, array: Array) -> Array:
        link = self._link
        if link.rank != root:
            return link.recv(root)
        for i in range(link.size):
            if i != root:
                link.send(array, i)
        return array

    def exchange(self, pieces: Sequence[Array]) -> list[Array]:
        p, r = self._link.size, self._link.rank
        seen = list(pieces)
        for step in range(1, p):
            dst, src = (r + step) % p, (r - step) % p
            seen[src] = self._link.sendrecv(pieces[dst], dst, src)
        return seen

    def windows(self, array: Array, private: bool = False) -> None:
        """Nobody's array can be reached."""

    def tell(self, sent: Sequence[int], got: Sequence[int]) -> None:
        """Without windows, there is nothing to tell."""

    def meet(self) -> None:
        self.exchange([np.empty(0, np.uint8)] * self._link.size)

    def enter(self, call: Any, note: Note | None, compare: Compare) -> None:
        """The messages say themselves to which call they belong."""

    def among(self, order: Sequence[int]) -> Messages:
        return Messages(Renumbered(self._link, order))

    def release(self) -> None:
        """What has been received stays."""
