"""What a collective sees of the world: a link to the other ranks, and how an array is cut.

An algorithm is written for ranks 0 to p-1 and, if it has a root, for root 0. `Renumbered` makes it
serve others: the same link, among some of its ranks, in another order.

    order = [2, 3, 0, 1]        rank 2 plays the part of 0: any root          (`seen_from`)
    order = [0, 2, 4, 5, 6]     ranks 1 and 3 stand by                        (`halving_doubling`)

Letters: p ranks, r own rank, c a piece of an array: piece c is buf[cuts[c]:cuts[c + 1]].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

Array = Any  # a numpy.ndarray or a cupy.ndarray


Note = Callable[[int, int, int], object]  # see Circle.enter
Compare = Callable[[int, Any], None]


class Window(Protocol):
    """A flat array of another rank, where it lies (see `reach`); positions count elements."""

    def read(self, start: int, stop: int) -> Array:
        """A part of it, to be looked at until the next read."""

    def fetch(self, start: int, into: Array) -> None:
        """Fill `into`, flat and contiguous, with what begins there."""

    def write(self, start: int, part: Array) -> None:
        """Put `part`, flat and contiguous, there."""


class Circle(Protocol):
    """Ranks that show each other arrays (flat ones) without sending them; `direct` says what for.

    All of them make the same calls in the same order. What a method returns may be read until the
    next call of one of them.
    """

    @property
    def room(self) -> int:
        """The bytes that can be shown at once."""

    def show(self, parts: Sequence[Array]) -> list[Array]:
        """A copy of every rank's own part; part i is as long on every rank."""

    def show_from(self, root: int, array: Array) -> Array:
        """The root's array on every rank; the root need not wait for the others."""

    def exchange(self, pieces: Sequence[Array]) -> list[Array]:
        """From every rank its piece for this one; piece i is as long on every rank."""

    def windows(self, array: Array, private: bool = False) -> list[Window] | None:
        """Every rank's array itself, to be read and written; None if not all can be reached.

        array:   flat, as long on every rank.
        private: whether to reach into private memory, too; the same on every rank.
        After it, `meet` before anybody may take its array for complete, or change it.
        """

    def tell(self, sent: Sequence[int], got: Sequence[int]) -> None:
        """Record how many bytes went through windows to each rank, and came from it."""

    def meet(self) -> None:
        """Return once every rank has got here."""

    def among(self, order: Sequence[int]) -> Circle | None:
        """Some of these ranks, or all in another order."""

    def enter(self, call: Any, note: Note | None, compare: Compare) -> None:
        """What follows belongs to that call.

        note:    told of all that is shown: (world rank, bytes to it, bytes from it).
        compare: asked about another call that a rank turns out to be in: (world rank, its call).
        """

    def release(self) -> None:
        """The last call of a collective: nothing that was shown will be read again."""


class Link(Protocol):
    """One call of one rank: the neighbours, and how to add.

    If the ranks have memory in common, it also has a `circle`: see `circle_of`.
    """

    rank: int
    size: int

    def send(self, array: Array, dst: int) -> None: ...

    def recv(self, src: int) -> Array: ...

    def sendrecv(self, array: Array, dst: int, src: int) -> Array: ...

    def add(self, into: Array, array: Array) -> None:
        """into += array, or what stands for + in this call: *, min, max."""


class Renumbered:
    """A link among some ranks of another one: rank i here is rank order[i] there."""

    def __init__(self, link: Link, order: Sequence[int]) -> None:
        self._link, self._order = link, order
        self.rank, self.size = order.index(link.rank), len(order)

    def send(self, array: Array, dst: int) -> None:
        self._link.send(array, self._order[dst])

    def recv(self, src: int) -> Array:
        return self._link.recv(self._order[src])

    def sendrecv(self, array: Array, dst: int, src: int) -> Array:
        return self._link.sendrecv(array, self._order[dst], self._order[src])

    def add(self, into: Array, array: Array) -> None:
        self._link.add(into, array)

    @property
    def circle(self) -> Circle | None:
        circle = circle_of(self._link)
        return None if circle is None else circle.among(self._order)

    def native(self) -> Any:
        link: Any = self._link  # on the mpi backend, the only one that asks
        return link.native()._replace(root=self._order[0])


def circle_of(link: Link) -> Circle | None:
    """The same call among the same ranks, by the memory that they have in common, if they do."""
    return getattr(link, "circle", None)


def seen_from(link: Link, root: int) -> Link:
    """The link with the root as rank 0, and the ranks after it as 1, 2, ... in a circle."""
    p = link.size
    return Renumbered(link, [(root + i) % p for i in range(p)]) if root else link


def even_cuts(n: int, p: int) -> list[int]:
    """The p+1 places where array_split cuts n elements: the first n % p pieces are longer by 1."""
    return [c * (n // p) + min(c, n % p) for c in range(p + 1)]


def pieces(buf: Array, cuts: Sequence[int]) -> list[Array]:
    """The pieces of buf: views, not copies."""
    return [buf[start:stop] for start, stop in pairwise(cuts)]
