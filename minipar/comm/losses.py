"""Ranks that are lost while the others go on: what one rank knows of them.

With on_lost="report" the end of a rank ends only the calls that involve it. A rank that is started
again is its next incarnation. This is how rank 0 hears rank 2, of which n and m were sent by the
first and by the second incarnation, and X is its end:

    rank 2, incarnation 0    n  n  X              incarnation 1    m  m
    rank 0, recv(2)          n  n  PeerLost                        m  m
    rank 0, recv(ANY)        n  n  PeerLost                        m  m     and those of the others

Every rank keeps, for every other one, the incarnation that it talks to. A call begun with one is
never answered by the next: a message carries the incarnation of its sender, and what does not fit
waits. So whatever the order of events, each rank first takes what the old one had sent completely,
then learns of its end, once, and only then hears the new one. A send learns at once.

Of other groups than the world the new incarnation knows nothing, and collectives have lost their
count. So those ended with the first loss: they raise PeerLost, always. Only send and receive in
the world go on. `Roll` is the launcher's side.

Source: so does ULFM (Bland et al. 2013) where one rank's failure must not end MPI's world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minipar.comm.frame import Call
from minipar.comm.mailbox import Mailbox, Receive
from minipar.comm.mismatch import world_note
from minipar.comm.transport import ANY, Pending, Transport
from minipar.errors import PeerLost

WORLD = (0, True)  # the lane of sends and receives between all ranks


@dataclass(frozen=True)
class Lost:
    """The end of one incarnation of a rank."""

    rank: int  # of the world
    incarnation: int
    why: str  # in one line that begins with the rank
    returns: bool  # whether the next incarnation takes its place

    def __str__(self) -> str:
        return f"{self.why}; {'it is started again' if self.returns else 'the others go on'}"


@dataclass(frozen=True)
class Standing:
    """What a rank that begins has to know of the others."""

    before: tuple[Lost, ...] = ()  # losses so far
    absent: frozenset[int] = frozenset()  # those who will return, but have not yet
    finished: frozenset[int] = frozenset()

    def losses(self, rank: int, size: int) -> Losses:
        return Losses(rank, size, self.before)

    def incarnation(self, rank: int) -> int:
        """Which one of that rank lives, or will."""
        return sum(lost.rank == rank for lost in self.before)

    def there(self, ranks: Iterable[int]) -> list[int]:
        """Those who are neither lost nor finished."""
        for_good = {lost.rank for lost in self.before if not lost.returns}
        return [r for r in ranks if r not in self.absent | self.finished | for_good]


class Losses:
    """Of one rank: who was lost, and what of that it has been told."""

    def __init__(self, rank: int, size: int, before: Iterable[Lost] = ()) -> None:
        """before: losses from before this incarnation of the rank."""
        self.rank = rank
        self._lost: list[list[Lost]] = [[] for _ in range(size)]  # by rank and incarnation
        for lost in before:
            self.note(lost)
        self.incarnation = len(self._lost[rank])
        # Those who came back are talked to as they are now; those who did not are news.
        self._page = [len(lost) - bool(lost and not lost[-1].returns) for lost in self._lost]
        self._first = tuple(self._page)
        self._told: dict[tuple[int, int], int] = {}  # by group and rank: ends told to recv(ANY)
        self._groups: dict[int, tuple[int, ...]] = {}

    def know(self, ident: int, ranks: tuple[int, ...]) -> None:
        """There is a group of that number."""
        self._groups[ident] = ranks

    def note(self, lost: Lost) -> None:
        """A rank was lost, and all that it has sent is in the mailbox."""
        self._lost[lost.rank].append(lost)

    @property
    def count(self) -> int:
        """Losses so far."""
        return sum(map(len, self._lost))

    def current(self, rank: int) -> int:
        """The incarnation of that rank that lives, or will."""
        return len(self._lost[rank])

    @property
    def for_good(self) -> set[int]:
        """The ranks that are lost and do not return."""
        return {r for r, lost in enumerate(self._lost) if lost and not lost[-1].returns}

    # -- whom a call is with --------------------------------------------------------------------

    def page(self, peer: int) -> int:
        """The incarnation of that rank with which sends and receives in the world are now."""
        return self._page[peer]

    def partner(self, peer: int, call: Call) -> int:
        """The incarnation of that rank with which a call is that begins now."""
        return self._page[peer] if call.lane == WORLD and peer != ANY else 0

    def end_of(self, call: Call, peer: int, incarnation: int) -> Lost | None:
        """The loss that has ended a call with that incarnation of that rank; None if none has."""
        if call.lane[1]:
            return next(iter(self._lost[peer][incarnation:]), None)
        return next((self._lost[r][0] for r in self._groups[call.group] if self._lost[r]), None)

    def heard(self, group: int, src: int) -> int:
        """The incarnation of that rank that recv(ANY) is ready to hear in that group."""
        return self._told.get((group, src), self._first[src] if group == 0 else 0)

    def untold(self, group: int, left: Callable[[int, int], bool]) -> Lost | None:
        """What recv(ANY) in that group has to tell next.

        left: whether there are messages left from that incarnation of that rank.
        """
        for src in self._groups[group]:
            i, lost = self.heard(group, src), self._lost[src]
            if i < (len(lost) if group == 0 else min(1, len(lost))) and not left(src, i):
                return lost[i]
        return None

    def tell_any(self, group: int, lost: Lost) -> None:
        """recv(ANY) tells of that loss, and not again."""
        self._told[group, lost.rank] = lost.incarnation + 1

    def error(self, lost: Lost, call: Call) -> PeerLost:
        """What to raise in that call. From now on this rank talks to the next incarnation."""
        ranks = self._groups[call.group]
        if call.lane == WORLD and lost.returns:
            self._page[lost.rank] = max(self._page[lost.rank], lost.incarnation + 1)
        text = f"{lost.why.rstrip('.')}; rank {self.rank} was in {call}"
        if not call.lane[1]:
            text += "\nA group that has lost a rank has no collectives any more."
        elif call.lane == WORLD and lost.returns:
            text += f"\nThe next call is with its incarnation {lost.incarnation + 1}."
        error = PeerLost(f"{text}\n{world_note(ranks)}".rstrip())
        error.rank, error.incarnation = ranks.index(lost.rank), lost.incarnation
        error.returns = lost.returns
        return error

    def check(self, call: Call, peer: int = ANY) -> None:
        """Before a collective, or a send to that rank.  Raises: PeerLost."""
        lost = self.end_of(call, peer, self.partner(peer, call))
        if lost is not None:
            raise self.error(lost, call)


# -- calls that a loss may end ------------------------------------------------------------------


class WatchedReceive(Receive):
    """A request that ends with a message or with a loss."""

    def __init__(self, losses: Losses, src: int, call: Call, out: np.ndarray | None = None) -> None:
        super().__init__(src, call, out)
        self.call = call
        self.lost: Lost | None = None
        self._losses, self._partner = losses, losses.partner(src, call)

    def accepts(self, src: int, incarnation: int = 0) -> bool:
        return self.src == ANY or (src, incarnation) == (self.src, self._partner)

    def end(self, mailbox: Mailbox) -> Lost | None:
        """The loss with which it ends, if no message comes first."""
        losses = self._losses
        if self.src != ANY:
            return losses.end_of(self.call, self.src, self._partner)
        return losses.untold(self.lane[0], lambda src, i: mailbox.left(self.lane, src, i))

    def look(self, mailbox: Mailbox) -> None:
        """End it, if a loss has."""
        self.lost = self.lost or self.end(mailbox)
        if self.lost is not None:
            mailbox.withdraw(self)
            if self.src == ANY:
                self._losses.tell_any(self.lane[0], self.lost)

    def result(self, mailbox: Mailbox) -> Any:
        if self.lost is not None:
            raise self._losses.error(self.lost, self.call)
        return self.message or mailbox.contradiction(self.call)


def watched_receive(
    transport: Transport, mailbox: Mailbox, src: int, call: Call, out: np.ndarray | None
) -> Pending:
    """As `pending_receive`.  recv(ANY) tells of losses before it takes a message of others."""
    receive = WatchedReceive(transport.losses, src, call, out)
    if src == ANY:
        receive.look(mailbox)
    if receive.lost is None:
        mailbox.post(receive)
    if receive.message is None:
        receive.look(mailbox)
    return Pending(
        transport,
        ready=lambda: (
            receive.message is not None
            or receive.lost is not None
            or mailbox.contradiction(call) is not None
        ),
        whom=src,
        call=call,
        result=lambda: receive.result(mailbox),
        give_up=lambda: mailbox.withdraw(receive),
    )


def watched_send(transport: Transport, done: Callable[[], bool], dst: int, call: Call) -> Pending:
    """A send under way that is done at some time, or ends with a loss."""
    losses = transport.losses
    partner = losses.partner(dst, call)

    def result() -> None:
        if not done():
            lost = losses.end_of(call, dst, partner)
            raise losses.error(lost, call)

    def over() -> bool:
        return done() or losses.end_of(call, dst, partner) is not None

    return Pending(transport, over, dst, call, result)


def would_end(losses: Losses, mailbox: Mailbox, src: int, call: Call) -> bool:
    """Whether a receive would end at once: with a message, or with a loss."""
    receive = WatchedReceive(losses, src, call)
    return mailbox.fits(receive) or receive.end(mailbox) is not None


def end_receives(mailbox: Mailbox) -> None:
    """After a loss was noted: end what it ends."""
    for receive in mailbox.posted():
        if isinstance(receive, WatchedReceive):  # all are
            receive.look(mailbox)
