"""The questions of workers, until the rule allows the answer.

    PULL, ROWS, STATE   when the worker is not too far ahead
    NORM                when all have pushed, so that the round's mean is known
    BYE                 when the worker's last push has been applied
    the rest            at once

Questions of one worker are answered in the order in which it asked, whatever the rule says, for it
receives them in that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from minipar import spans
from minipar.array import Array
from minipar.comm.group import Group
from minipar.comm.transport import Pending
from minipar.errors import MiniparError, PeerLost
from minipar.parallel.parameter_server import wire
from minipar.parallel.parameter_server.book import Book
from minipar.parallel.parameter_server.payload import bundle_of, check_ids
from minipar.parallel.parameter_server.store import norm_squared
from minipar.parallel.parameter_server.wire import Head


class Question(NamedTuple):
    """A message that has an answer; `tail` is what the answer says beside its head."""

    worker: int
    head: Head
    tail: Sequence[int]
    arrays: Sequence[Array]


class Desk:
    """What one server has been asked."""

    def __init__(self, world: Group, book: Book) -> None:
        self.world, self.book, self.store = world, book, book.store
        self.questions: list[Question] = []
        self.refusals: dict[int, MiniparError] = {}  # what a worker is told, whatever it asks
        self.held: set[int] = set()  # workers with a question that has to wait

    def refuse(self, worker: int, what: str, error: MiniparError) -> None:
        """The next answer to that worker is this error."""
        text = f"server {self.world.rank}, {what} of worker {worker} refused: {error}"
        self.refusals[worker] = type(error)(text)

    def forget(self, worker: int) -> None:
        self.refusals.pop(worker, None)
        self.held.discard(worker)
        self.questions = [q for q in self.questions if q.worker != worker]

    def answer(self) -> None:
        """Answer all questions whose time has come."""
        behind: set[int] = set()
        for q in list(self.questions):
            if q.worker in behind or not (q.worker in self.refusals or self._ready(q)):
                behind.add(q.worker)
                self._hold(q)
                continue
            self._let_go(q.worker)
            self.questions.remove(q)
            with suppress(PeerLost):  # whoever asked has died, and `recv` will say so
                self._answer(q)

    def _ready(self, q: Question) -> bool:
        kind, book = q.head.kind, self.book
        if kind == wire.NORM:
            return book.complete(q.head.clock, book.pushes)
        if kind in (wire.PULL, wire.ROWS, wire.STATE):
            return book.rule.may_pull(q.head.clock, book.clocks)
        return kind != wire.BYE or q.worker not in book.steps

    def _hold(self, q: Question) -> None:
        """Say in the trace for whom a worker waits from now on."""
        if q.worker not in self.held and self.book.clocks:
            slowest, clocks = self.book.slowest(), self.book.clocks
            spans.mark("held", q.worker, slowest, lag=q.head.clock - clocks[slowest])
            self.held.add(q.worker)

    def _let_go(self, worker: int) -> None:
        if worker in self.held:
            spans.mark("granted", worker, self.book.clocks.get(worker, 0))
            self.held.discard(worker)

    def _answer(self, q: Question) -> None:
        kind, store = q.head.kind, self.store
        if q.worker in self.refusals:
            self._say_no(q)
        elif kind in (wire.PULL, wire.ROWS):
            self._tell_values(q)
        elif kind == wire.NORM:
            self._send(q, Head(wire.ANSWER, factor=norm_squared(self.book.mean())))
        elif kind == wire.STATE:
            self._send(q, Head(wire.ANSWER, steps=store.optimizer.steps), store.state())
        else:
            clock = self.book.clocks.get(q.worker, 0)
            self._send(q, Head(wire.ANSWER, clock=clock))

    def _tell_values(self, q: Question) -> None:
        """The versions of all keys; the rows asked for; if it is a PULL, all dense keys."""
        store, shard = self.store, self.store.shard
        asked, rows = iter(q.arrays), []
        for i, count in zip(shard.tables, q.tail):
            if count:
                rows.append(store.tensors[i].data[next(asked)])
        bundles = shard.bundles if q.head.kind == wire.PULL else []
        dense = [bundle_of([store.tensors[i].data for i in bundle]) for bundle in bundles]
        head = Head(wire.ANSWER, version=store.updates)
        q = q._replace(tail=store.versions.tolist())
        for bundle, pending in zip(bundles, self._send(q, head, [*dense, *rows])):
            if len(bundle) == 1:
                store.lend(bundle[0], pending)
        slowest = min(self.book.clocks.values(), default=q.head.clock)
        report = self.book.report
        report.most_ahead = max(report.most_ahead, q.head.clock - slowest)

    def _say_no(self, q: Question) -> None:
        """A refusal, and an empty array for each that its worker expects."""
        error = self.refusals.pop(q.worker)
        q = q._replace(tail=wire.text_tail(str(error)))
        empty = [np.empty(0, np.uint8)] * q.head.expected
        self._send(q, Head(wire.REFUSED, code=wire.error_number(error)), empty)

    def _send(self, q: Question, head: Head, arrays: Sequence[Array] = ()) -> list[Pending]:
        """Begin to send an answer; the sends under way of its arrays. It acknowledges pushes."""
        head = head._replace(number=self.book.numbers[q.worker], messages=len(arrays))
        first = wire.pack_head(head, q.tail)
        self.book.report.bytes_out += first.nbytes + sum(a.nbytes for a in arrays)
        self.world.isend(first, q.worker)
        return [self.world.isend(a, q.worker) for a in arrays]


def check_rows(q: Question, book: Book) -> None:
    """Raises: UsageError, ShapeMismatch, if a question asks for rows that are not there."""
    shard, asked = book.store.shard, iter(q.arrays)
    wanted = [(i, count) for i, count in zip(shard.tables, q.tail) if count]
    if len(q.tail) != len(shard.tables) or len(wanted) != len(q.arrays):
        wire.misfit(f"rows of {len(q.tail)} tables", f"{len(shard.tables)} tables")
    for i, count in wanted:
        ids = next(asked)
        check_ids(shard.keys[i], ids)
        if len(ids) != count:
            wire.misfit(f"{len(ids)} ids of {shard.keys[i].name}", f"{count} ids")
