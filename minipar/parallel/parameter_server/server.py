r"""A server: one loop over what comes, from whomever.

    while workers are present:
        src, message = world.recv(ANY)
        lay it aside, apply it, or let it wait           as the rule says (rules.py)
        answer whoever may be answered now

There are no locks: between two messages nothing changes, so a push is applied whole or not at all,
and a pull sees the state between two pushes. (Of one server. Another one may have applied the same
worker's push already: each server is on its own, as in Dean et al. 2012; in sync they agree.)

A push comes in two parts. PUSH brings the gradients, which are checked and laid aside. STEP says
that they count, with the rate: until then a worker that dies leaves nothing behind. A push has a
number, and what is not higher than the last one of its worker is a repetition.

Papers: Li et al. 2014; Dean et al. 2012; Ho et al. 2013.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from minipar import spans
from minipar.array import Array
from minipar.comm.transport import ANY
from minipar.errors import CommTimeout, Diverged, MiniparError, PeerLost, UsageError
from minipar.nn import Module
from minipar.parallel.parameter_server import snapshot, wire
from minipar.parallel.parameter_server.book import Book, Push
from minipar.parallel.parameter_server.desk import Desk, Question, check_rows
from minipar.parallel.parameter_server.keys import SLICE_BYTES, shards_of
from minipar.parallel.parameter_server.payload import code_of, not_finite, values_of
from minipar.parallel.parameter_server.report import Report
from minipar.parallel.parameter_server.roles import Roles, restarted
from minipar.parallel.parameter_server.rules import Rule
from minipar.parallel.parameter_server.snapshot import Snapshots
from minipar.parallel.parameter_server.store import Store
from minipar.parallel.strategy import MakeOptimizer


class Conduct(NamedTuple):
    """What a server does when something goes wrong.

    on_nan:         a push with NaN or infinity is an "error" of its worker, or "skip".
    on_worker_loss: in sync, a worker that is lost for good is an "error", or "drop": rounds close
                    without it. In async and ssp it is taken off the clock.
    needs:          ranks of workers that no rule can do without; their loss is always an error.
    snapshots:      where to, and how often; a server that is started again goes on from the last.
    """

    on_nan: str = "error"
    on_worker_loss: str = "error"
    snapshots: Snapshots | None = None
    needs: Sequence[int] = ()

    def check(self) -> None:
        """Raises: UsageError."""
        for name, given, other in (
            ("on_nan", self.on_nan, "skip"),
            ("on_worker_loss", self.on_worker_loss, "drop"),
        ):
            if given not in ("error", other):
                raise UsageError(f"serve: {name} is 'error' or '{other}', not {given!r}.")


def serve(
    roles: Roles,
    model: Module,
    make_optimizer: MakeOptimizer,
    rule: Rule,
    conduct: Conduct | None = None,
    *,
    slice_bytes: int = SLICE_BYTES,
) -> Report:
    """Be a server until all workers have said goodbye; what happened.

    model:       its weights are the first ones; the servers' count, not the workers'.
    slice_bytes: see `keys`; the same on servers and workers.
    Raises:      PeerLost, UsageError, CheckpointError; CommError if a message makes no sense.
    """
    conduct = conduct or Conduct()
    conduct.check()
    assert roles.server is not None, "serve is for ranks that are servers"
    roles.check()
    roles.used = True
    shard = shards_of(model, len(roles.server_ranks), slice_bytes)[roles.server]
    return Server(roles, Store(shard, model, make_optimizer), rule, conduct).run()


class Server:
    """Hears the workers, writes into the book, and lets the desk answer."""

    def __init__(self, roles: Roles, store: Store, rule: Rule, conduct: Conduct) -> None:
        self.world, self.store, self.conduct = roles.world, store, conduct
        self.book = Book(roles.worker_ranks, store, rule)
        self.desk = Desk(roles.world, self.book)
        self.absent: set[int] = set()  # lost workers that are started again
        self._buried: set[tuple[int, int]] = set()  # those who were lost: rank, incarnation
        self._saved, self._must_save = 0, False
        self._folder: Path | None = None
        if conduct.snapshots is not None:
            self._folder = Path(conduct.snapshots.folder, f"server-{roles.server}")
            if restarted(self.world):
                self.restore()

    def run(self) -> Report:
        bound = self.book.rule.bound
        spans.mark("bound", self.world.rank, -1 if bound == math.inf else int(bound))
        while self.book.clocks or self.absent:
            try:
                self.hear(*self.next_message())
            except PeerLost as lost:
                self.lose(lost)
            self.book.close_round()
            self.save()
            self.desk.answer()
        return self.book.report

    # -- hearing ------------------------------------------------------------------------------

    def next_message(self) -> tuple[int, Array]:
        """The next one, and who sent it, however long workers compute: who dies is reported."""
        while True:
            with suppress(CommTimeout):
                return self.world.recv(ANY)

    def hear(self, worker: int, array: Array) -> None:
        """Take in a message, all of it, before anything is done."""
        head, tail = wire.unpack_head(array)
        arrays = [self.world.recv(worker) for _ in range(head.messages)]
        self.book.report.bytes_in += array.nbytes + sum(a.nbytes for a in arrays)
        message = Question(worker, head, tail, arrays)
        try:
            message = message._replace(tail=self.heed(message))
        except MiniparError as error:
            self.desk.refuse(worker, wire.KINDS[head.kind], error)
        if head.kind not in (wire.PUSH, wire.STEP):
            self.desk.questions.append(message)

    def heed(self, m: Question) -> Sequence[int]:
        """What a message changes; the tail of its answer, or what the desk needs to make it.

        Raises: what is wrong with the message; then it changes nothing.
        """
        kind, book, store = m.head.kind, self.book, self.store
        if kind == wire.PUSH:
            book.lay_aside(m.worker, m.head.number, self.checked(m))
        elif kind == wire.STEP:
            book.step(m.worker, m.head)
        elif kind in (wire.PULL, wire.ROWS):
            check_rows(m, book)
        elif kind == wire.SET:
            store.put(values_of(store.shard, m.tail, m.arrays))
            spans.mark("given", m.worker, store.updates)
            self._must_save = True
        elif kind == wire.LOAD:
            store.put_state(list(m.arrays), m.head.steps)
            self._must_save = True
        elif kind == wire.HELLO:
            return self.welcome(m)
        elif kind == wire.BYE:
            book.forget(m.worker)
            self._must_save = True
        return m.tail

    def checked(self, m: Question) -> Push:
        """The push in a message.  Raises: UsageError, ShapeMismatch, Diverged."""
        shard, head = self.store.shard, m.head
        gradients = values_of(shard, m.tail, m.arrays, code_of(head.code))
        bad = None if head.finite else not_finite(gradients)
        if bad is not None and self.conduct.on_nan == "error":
            raise Diverged(f"{shard.keys[bad].name} has NaN or infinity.")
        self.book.report.skipped += bad is not None
        if bad is not None or not head.rows > 0:
            return Push(0.0, head.version, {})
        return Push(head.rows, head.version, gradients)

    def welcome(self, m: Question) -> Sequence[int]:
        """Put the worker on the clock, and say which rule holds.

        Raises: UsageError if it has other keys.
        """
        if list(m.tail) != [self.store.shard.checksum]:
            raise UsageError(
                "its keys are not those of this server. Servers and workers must build the same "
                "model, with the same slice_bytes."
            )
        worker, book = m.worker, self.book
        self.absent.discard(worker)
        book.return_at(worker, None if m.head.clock == wire.NEW else m.head.clock)
        lost = max(0, m.head.number - book.numbers[worker])
        if lost:
            book.numbers[worker] += lost
            book.report.lost_pushes[worker] = book.report.lost_pushes.get(worker, 0) + lost
            pushes = f"{lost} push" + "es" * (lost > 1)
            text = f"server {self.world.rank}: {pushes} of worker {worker} acknowledged after the"
            print(f"{text} last snapshot: lost", file=sys.stderr, flush=True)
            self._must_save = True
        return book.rule.rounds, self.conduct.on_nan == "skip", lost

    # -- lost workers -------------------------------------------------------------------------

    def lose(self, lost: PeerLost) -> None:
        """A worker has died.  Raises: PeerLost, if a round, or the job, cannot do without it."""
        worker, book = lost.rank, self.book
        if worker is None:
            raise lost  # losses are not reported: the job is over
        if worker not in book.numbers or (worker, lost.incarnation) in self._buried:
            return
        self._buried.add((worker, lost.incarnation))
        book.report.lost_workers.append(worker)
        self.absent.discard(worker)
        self.desk.forget(worker)
        waits = book.rule.rounds and self.conduct.on_worker_loss == "error"
        must_have_it = waits or worker in self.conduct.needs
        if waits and lost.returns:
            book.drop(worker)  # and the round waits until it is back
        elif must_have_it and not lost.returns and worker in book.clocks:
            self.give_up(worker, lost)
        else:
            book.forget(worker)
            self._must_save = True
            self.absent |= {worker} if lost.returns else set()

    def give_up(self, worker: int, lost: PeerLost) -> None:
        """Raises: PeerLost, here and at all workers that have asked something."""
        round_ = 1 + min(self.book.clocks.values())
        when = f" in round {round_} of sync" if self.book.rule.rounds else ""
        error = PeerLost(f"worker {worker} was lost{when}: {lost}")
        for other in self.book.clocks:
            self.desk.refusals[other] = error
        self.desk.answer()
        raise error

    # -- snapshots ----------------------------------------------------------------------------

    def save(self) -> None:
        """A snapshot, if it is time for one, or if who is present has changed."""
        snapshots, book = self.conduct.snapshots, self.book
        if snapshots is None or self._folder is None or book.steps:
            return
        if self._must_save or self.store.updates >= self._saved + snapshots.every:
            snapshot.save(self._folder, book)
            self._saved, self._must_save = self.store.updates, False

    def restore(self) -> None:
        """Go on from the last snapshot, if there is one."""
        assert self._folder is not None
        if snapshot.load(self._folder, self.book):
            self._saved = self.store.updates
