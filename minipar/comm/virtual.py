"""Virtual time: a clock that is moved by what happens, and not by the machine that runs it.

    rank 0   |--- out: to 1 ---|--- out: to 2 ---|          a message takes α + nβ, and is under
    rank 1   |--- in: from 0 --|-- add --| compute          way at both ends at the same time
    rank 2                     |--- in: from 0 --|

Each rank has one port out and one port in, which work at the same time, and beside what it
computes. The rules:

1. A message leaves when it is sent and those that the rank sent before are out. It occupies the
   port out for α + nβ; then `send` returns.
2. It begins to come in when it leaves and the receiver's port in is free, and occupies that port
   for α + nβ; then it is there. If several wait for the port, those that the receiver has asked for
   go first, then in the order of leaving, ties by rank.
3. `link.add` takes nγ, in which nothing else begins to come in: there is one place to receive into.
4. `spend` takes what it says. Nothing else takes time.
5. A rank that the cluster declares lost ends at that moment, before all else that happens then.
   What is not out of its port never arrives, but keeps a port in that has begun to take it in.

All is one list of what will happen when, the agenda. Whoever has the smallest time comes next, so
the clock never goes back, and a rank that runs cannot miss what happened before (a conservative
simulation of discrete events). A rank with a second thread (`asynchronous`) runs twice at the same
time; both use the same two ports.

A rank that asks (`poll`, `done`) hears of all that has happened up to now. Asking takes no time;
but who asks the same once more at the same moment is taken to the next moment at which something
happens, or a loop around a question would never end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush

from minipar.comm.cluster import Cluster
from minipar.comm.mailbox import Mailbox
from minipar.comm.transport import Message, Pending, Transport

# What comes first of what happens at the same time.
LOST, ENDS, ARRIVES, RUNS, LEAVES, BEGINS, ASKS = range(7)


class Gone(BaseException):
    """Unwinds a rank that the cluster declares lost. Nobody else is to catch it."""


@dataclass(eq=False)
class Incoming:
    """A message under way."""

    src: int
    takes: int  # α + nβ
    put: Callable[[], object]  # delivers it
    asked: Callable[[], object]  # whether the receiver has asked for it
    out: int = 0  # when it is out of the port of its sender
    cut: bool = False  # its sender was lost before


def isend_in_time(
    clock: Clock, transport: Transport, message: Message, dst: int, mailbox: Mailbox
) -> Pending:
    """Send a message by the clock. Whatever its size, it never waits for its receiver."""
    src, call = message.src, message.header.call
    incoming = Incoming(
        src,
        clock.cluster.message_ns(src, dst, message.array.nbytes),
        put=lambda: mailbox.deliver(message),
        asked=lambda: mailbox.expected(src, call, message.incarnation),
    )
    begin, end = clock.send(dst, incoming)
    pending = Pending(transport, lambda: clock.now >= end, dst, call)
    pending.span = begin, end
    return pending


class Clock:
    """The time of all ranks, and what will happen. Thread 2r is rank r, 2r+1 its second."""

    def __init__(
        self,
        cluster: Cluster,
        ranks: int,
        can_run: Callable[[int], bool],
        lose: Callable[[int], Iterable[int]],
    ) -> None:
        """can_run: whether a thread that waits may go on.  lose: notes that a rank is lost now, and
        tells which of its threads that ends.
        """
        self.cluster, self.now, self._can_run, self._end = cluster, 0, can_run, lose
        # time, kind, order among equals, number, whom it concerns, what to do
        self._agenda: list[tuple[int, int, int, int, int, Callable[[], object] | None]] = []
        self._number = 0
        self._out_free, self._in_free = [0] * ranks, [0] * ranks
        # of each rank what it has sent, is not there yet, and will be
        self._under_way: list[list[Incoming]] = [[] for _ in range(ranks)]
        self._queue: list[list[Incoming]] = [[] for _ in range(ranks)]
        self._due: set[int] = set()  # threads that stand in the agenda
        self._spinning: list[int] = []  # threads that ask until something happens
        self._asked: dict[int, tuple[int, set[object]]] = {}  # thread: moment, questions
        for rank in range(1, ranks):  # rank 0 has the baton
            self.run_at(0, 2 * rank)
        for rank, seconds in cluster.lost.items():
            self._plan(round(1e9 * seconds), LOST, rank, rank, partial(self._lose, rank))

    # -- what takes time ----------------------------------------------------------------------

    def send(self, dst: int, message: Incoming) -> tuple[int, int]:
        """From when to when the message occupies the port out; at the end its sender is woken."""
        src = message.src
        self._under_way[src].append(message)
        begin = max(self.now, self._out_free[src])
        end = message.out = self._out_free[src] = begin + message.takes
        self._plan(begin, LEAVES, src, dst, lambda: self._line_up(dst, message))
        self._plan(end, ARRIVES, src, src)
        return begin, end

    def add(self, thread: int, nbytes: int) -> None:
        """The thread adds up so many bytes: it is due when that is done."""
        rank = thread // 2
        end = self.now + self.cluster.adding_ns(rank, nbytes)
        self._in_free[rank] = max(self._in_free[rank], end)
        self.run_at(end, thread)

    def compute(self, thread: int, seconds: float) -> None:
        """The thread computes: it is due when that is done."""
        self.run_at(self.now + self.cluster.computing_ns(thread // 2, seconds), thread)

    def all_arrived(self, src: int) -> bool:
        """Whether all that a rank has sent is there."""
        return not self._under_way[src]

    # -- who runs -----------------------------------------------------------------------------

    def run_at(self, time: int, thread: int, kind: int = RUNS) -> None:
        self._due.add(thread)
        self._plan(time, kind, thread, thread)

    def ask(self, thread: int) -> None:
        """The thread goes on when all that happens at this moment has happened."""
        self.run_at(self.now, thread, ASKS)

    def asks_again(self, thread: int, question: object) -> bool:
        """Note that the answer was no. Was it so before, at this moment? Then the thread is to be
        handed on, and goes on when something has happened.
        """
        moment, questions = self._asked.get(thread, (-1, set()))
        if moment != self.now:
            questions = set()
        again = question in questions
        self._asked[thread] = self.now, questions | {question}
        if again:
            self._spinning.append(thread)
            self._due.add(thread)
        return again

    def idle(self) -> bool:
        """Whether nothing will happen if no rank does anything."""
        return not self._agenda

    def next(self, woken: Iterable[int]) -> int | None:
        """Let happen what comes next, until it is the turn of a thread; None if nothing comes.

        woken: threads that wait, but for something that may have come about.
        """
        self._wake(woken)
        while self._agenda or self._spinning:
            if not self._agenda:
                self._end_spinning()
            self.now, kind, _, _, whom, act = heappop(self._agenda)
            if kind != ASKS:
                self._end_spinning()
            if kind in (RUNS, ASKS, ENDS):
                self._due.remove(whom)
                return whom
            if act is not None:
                act()
            self._wake((2 * whom, 2 * whom + 1))
        return None

    # -- bookkeeping --------------------------------------------------------------------------

    def _plan(
        self, time: int, kind: int, order: int, whom: int, act: Callable[[], object] | None = None
    ) -> None:
        self._number += 1
        heappush(self._agenda, (time, kind, order, self._number, whom, act))

    def _line_up(self, rank: int, message: Incoming) -> None:
        """A message leaves for that rank."""
        if message.cut:
            return
        self._queue[rank].append(message)
        if len(self._queue[rank]) == 1:
            self._plan(self.now, BEGINS, rank, rank, lambda: self._take_in(rank))

    def _take_in(self, rank: int) -> None:
        """A message begins to come in, if the port is free; else look again when it should be."""
        queue = self._queue[rank]
        if queue and self._in_free[rank] <= self.now:
            first = next((m for m in queue if m.asked()), queue[0]) if len(queue) > 1 else queue[0]
            queue.remove(first)
            self._in_free[rank] = self.now + first.takes
            self._plan(self._in_free[rank], ARRIVES, rank, rank, lambda: self._arrive(first))
        if queue:
            self._plan(self._in_free[rank], BEGINS, rank, rank, lambda: self._take_in(rank))

    def _arrive(self, message: Incoming) -> None:
        if message.cut:
            return
        message.put()
        self._under_way[message.src].remove(message)
        self._wake((2 * message.src,))  # it may have raised, and wait for this

    def _wake(self, threads: Iterable[int]) -> None:
        for thread in threads:
            if thread not in self._due and self._can_run(thread):
                self.run_at(self.now, thread)

    def _end_spinning(self) -> None:
        for thread in self._spinning:
            self.ask(thread)
        self._spinning = []

    def _lose(self, rank: int) -> None:
        """The rank is lost: its threads run now, to end, and not when they are due."""
        ended = set(self._end(rank))
        if not ended:
            return
        for message in self._under_way[rank]:
            message.cut = message.out > self.now
        self._under_way[rank] = [m for m in self._under_way[rank] if not m.cut]
        self._queue = [[m for m in queue if not m.cut] for queue in self._queue]
        self._agenda = [e for e in self._agenda if e[1] not in (RUNS, ASKS) or e[4] not in ended]
        heapify(self._agenda)
        self._out_free[rank] = self.now
        for thread in sorted(ended):
            self.run_at(self.now, thread, ENDS)
