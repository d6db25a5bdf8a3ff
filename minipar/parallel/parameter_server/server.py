r"""A server: one loop over what comes, from whomever.

    while workers are present:
        src, message = world.recv(ANY)
        lay it aside, apply it, or let it wait           as the rule says (rules.py)
        answer whoever may be answered now

There are no locks: between two messages nothing changes, so a push is applied whole or not at all,
and a pull sees the state between two pushes. (Of one server. Another one may have applied the same
worker's push already: each server is on its own, as in Dean et al. 2012; in sync they agree.)

A push comes in two parts. PUSH brings the gradients, which are checked and laid aside. STEP says
that they count, with the rate: until then a worker that dies leaves nothing behind. A STEP has a
number, and what is not higher than the last one of its worker is a repetition.

Papers: Li et al. 2014; Dean et al. 2012; Ho et al. 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from minipar.array import Array
from minipar.comm.transport import ANY, Pending
from minipar.errors import Diverged, MiniparError, PeerLost, UsageError
from minipar.nn import Module
from minipar.parallel.parameter_server import wire
from minipar.parallel.parameter_server.keys import SLICE_BYTES, shards_of
from minipar.parallel.parameter_server.payload import (
    Values,
    bundle_of,
    check_ids,
    code_of,
    not_finite,
    values_of,
)
from minipar.parallel.parameter_server.report import Record, Report
from minipar.parallel.parameter_server.roles import Roles
from minipar.parallel.parameter_server.rules import Rule
from minipar.parallel.parameter_server.store import Store, mean, norm_squared
from minipar.parallel.parameter_server.wire import Head
from minipar.parallel.strategy import MakeOptimizer


def serve(
    roles: Roles,
    model: Module,
    make_optimizer: MakeOptimizer,
    rule: Rule,
    *,
    on_nan: str = "error",
    on_worker_loss: str = "error",
    slice_bytes: int = SLICE_BYTES,
) -> Report:
    """Be a server until all workers have said goodbye; what happened.

    model:          its weights are the first ones; the servers' count, not the workers'.
    on_nan:         a push with NaN or infinity is an "error" of its worker, or "skip".
    on_worker_loss: in sync, a lost worker is an "error", or "drop": the round closes without it.
                    In async and ssp it is taken off the clock.
    slice_bytes:    see `keys`; the same on servers and workers.
    Raises:         PeerLost; CommError if a message makes no sense.
    """
    for given, choices in ((on_nan, ("error", "skip")), (on_worker_loss, ("error", "drop"))):
        if given not in choices:
            raise UsageError(f"serve: there is {' or '.join(choices)}, but no {given!r}.")
    assert roles.server is not None
    shard = shards_of(model, len(roles.server_ranks), slice_bytes)[roles.server]
    store = Store(shard, model, make_optimizer)
    return Server(
        roles, store, rule, skip_nan=on_nan == "skip", drop=on_worker_loss == "drop"
    ).run()


class Push(NamedTuple):
    """Gradients that have been laid aside."""

    rows: float
    version: int  # of the weights that they were computed with
    gradients: Values


class Question(NamedTuple):
    """What waits for its answer."""

    worker: int
    head: Head
    tail: Sequence[int]
    arrays: Sequence[Array]


class Server:
    """The clocks of all workers, and what has to wait."""

    def __init__(
        self, roles: Roles, store: Store, rule: Rule, *, skip_nan: bool, drop: bool
    ) -> None:
        self.world, self.store, self.rule = roles.world, store, rule
        self.skip_nan, self.drop = skip_nan, drop
        self.clocks = dict.fromkeys(roles.worker_ranks, 0)  # of those who are present
        self.numbers = dict.fromkeys(roles.worker_ranks, 0)  # the last push of each that counts
        self.pushes: dict[int, Push] = {}  # laid aside, by worker
        self.steps: dict[int, Head] = {}  # in rounds: whose push counts, and waits for the rest
        self.questions: list[Question] = []
        self.refusals: dict[int, MiniparError] = {}
        self.report = Report()
        self._mean: Values | None = None  # of the round, once it is known

    def run(self) -> Report:
        while self.clocks:
            try:
                worker, array = self.world.recv(ANY)
                self.hear(worker, array)
            except PeerLost as lost:
                self.lose(lost)
            self.close_round()
            self.answer()
        return self.report

    # -- hearing ------------------------------------------------------------------------------

    def hear(self, worker: int, array: Array) -> None:
        """Take in a message, all of it."""
        head, tail = wire.unpack_head(array)
        arrays = [self.world.recv(worker) for _ in range(head.messages)]
        self.report.bytes_in += array.nbytes + sum(a.nbytes for a in arrays)
        question = Question(worker, head, tail, arrays)
        if head.kind == wire.PUSH:
            self.lay_aside(question)
        elif head.kind == wire.STEP:
            self.step(worker, head)
        elif head.kind == wire.BYE:
            self.forget(worker)
        else:
            self.questions.append(question)

    def lay_aside(self, q: Question) -> None:
        """Check a push. One that is refused leaves nothing but the refusal."""
        if q.head.number <= self.numbers[q.worker]:
            return  # has been applied already; its worker did not get to know
        shard, head = self.store.shard, q.head
        try:
            values = values_of(shard, q.tail, q.arrays, code_of(head.code))
            bad = not_finite(values)
            if bad is not None and not self.skip_nan:
                raise Diverged(f"{shard.keys[bad].name} has NaN or infinity.")
        except MiniparError as error:
            self.refuse(q.worker, "push", error)
            return
        self.report.skipped += bad is not None
        if bad is not None or not head.rows > 0:
            values, head = {}, head._replace(rows=0.0)
        self.pushes[q.worker] = Push(head.rows, head.version, values)

    def refuse(self, worker: int, what: str, error: MiniparError) -> None:
        text = f"server {self.world.rank}, {what} of worker {worker} refused: {error}"
        self.refusals[worker] = type(error)(text)

    def step(self, worker: int, head: Head) -> None:
        """The worker's push counts: apply it, or let it wait for the rest of its round."""
        if head.number <= self.numbers[worker]:
            self.report.repeated += 1
            return
        if worker not in self.pushes:
            return  # it was refused
        self.numbers[worker], self.clocks[worker] = head.number, head.clock
        if self.rule.rounds:
            self.steps[worker] = head
        else:
            self.apply([worker], head)

    def forget(self, worker: int) -> None:
        """The worker is off the clock; what it had not said to count is gone."""
        self.clocks.pop(worker, None)
        self.refusals.pop(worker, None)
        self.questions = [q for q in self.questions if q.worker != worker]
        if worker not in self.steps and self._mean is None:
            self.pushes.pop(worker, None)

    def lose(self, lost: PeerLost) -> None:
        """A worker has died.  Raises: PeerLost, if a round cannot do without it."""
        worker = getattr(lost, "rank", None)
        if worker is None:
            raise lost
        if worker not in self.clocks:
            return
        self.report.lost_workers.append(worker)
        self.forget(worker)
        if self.rule.rounds and not self.drop:
            round_ = 1 + min(self.numbers.values())
            error = PeerLost(f"worker {worker} was lost in round {round_} of sync: {lost}")
            for other in self.clocks:
                self.refusals[other] = error
            self.answer()
            raise error

    # -- applying -----------------------------------------------------------------------------

    def close_round(self) -> None:
        """Apply the pushes of a round, once all who are present have said that theirs count."""
        if self.steps and all(worker in self.steps for worker in self.clocks):
            self.apply(sorted(self.steps), self.steps[min(self.steps)])
            self.steps.clear()

    def apply(self, workers: Sequence[int], head: Head) -> None:
        """One update, with the mean of these workers' pushes."""
        before = self.store.updates
        gradients = self.mean() if self.rule.rounds else self.pushes[workers[0]].gradients
        if gradients:
            self.store.update(gradients, head.lr, head.factor)
        for worker in workers:
            push = self.pushes.pop(worker)
            if push.gradients:
                record = Record(worker, self.clocks.get(worker, head.clock), push.version, before)
                self.report.note(record)
        self._mean = None
        self.pushes = {} if self.rule.rounds else self.pushes

    def mean(self) -> Values:
        """The mean gradient of the round."""
        if self._mean is None:
            found = [self.pushes[worker] for worker in sorted(self.pushes)]
            self._mean = mean((push.rows, push.gradients) for push in found)
        return self._mean

    # -- answering ----------------------------------------------------------------------------

    def answer(self) -> None:
        """Answer all questions whose time has come; those of one worker in the order it asked."""
        behind: set[int] = set()
        for q in list(self.questions):
            refusal = self.refusals.pop(q.worker, None)
            if q.worker in behind or (refusal is None and not self.ready(q)):
                behind.add(q.worker)
                continue
            self.questions.remove(q)
            try:
                if refusal is not None:
                    raise refusal
                with suppress(PeerLost):
                    self.tell(q)
            except MiniparError as error:
                self.say_no(q, error)

    def ready(self, q: Question) -> bool:
        """Whether the rule allows the answer."""
        if q.head.kind == wire.NORM:
            return all(worker in self.pushes for worker in self.clocks)
        if q.head.kind in (wire.PULL, wire.ROWS, wire.STATE):
            return self.rule.may_pull(q.head.clock, self.clocks)
        return True

    def tell(self, q: Question) -> None:
        kind, store = q.head.kind, self.store
        if kind in (wire.PULL, wire.ROWS):
            self.tell_values(q)
        elif kind == wire.HELLO:
            self.welcome(q)
        elif kind == wire.NORM:
            squared = norm_squared(self.mean())
            self.send(q.worker, Head(wire.ANSWER, factor=squared))
        elif kind == wire.STATE:
            state = store.state()
            steps = store.optimizer.steps
            self.send(q.worker, Head(wire.ANSWER, number=steps), messages=state)
        else:
            self.put(q)
            self.send(q.worker, Head(wire.ANSWER))

    def welcome(self, q: Question) -> None:
        """Raises: UsageError if the worker has other keys."""
        if q.tail != [self.store.shard.checksum]:
            raise UsageError(
                "its keys are not those of this server. Servers and workers must build the same "
                "model, with the same slice_bytes."
            )
        head = Head(wire.ANSWER, number=self.numbers[q.worker], clock=self.clocks[q.worker])
        self.send(q.worker, head, [self.rule.rounds, self.skip_nan])

    def tell_values(self, q: Question) -> None:
        """The versions of all keys; all bundles, if it is a PULL; the rows asked for."""
        store, shard = self.store, self.store.shard
        asked, arrays = iter(q.arrays), []
        for i, count in zip(shard.tables, q.tail):
            if count:
                ids = next(asked)
                check_ids(shard.keys[i], ids)
                arrays.append(store.tensors[i].data[ids])
        bundles = shard.bundles if q.head.kind == wire.PULL else []
        dense = [bundle_of([store.tensors[i].data for i in bundle]) for bundle in bundles]
        head = Head(wire.ANSWER, version=store.updates)
        pendings = self.send(q.worker, head, store.versions.tolist(), [*dense, *arrays])
        for bundle, pending in zip(bundles, pendings):
            if len(bundle) == 1:
                store.lend(bundle[0], pending)
        if q.head.kind == wire.PULL:
            ahead = q.head.clock - min(self.clocks.values(), default=q.head.clock)
            self.report.most_ahead = max(self.report.most_ahead, ahead)

    def put(self, q: Question) -> None:
        """SET and LOAD: values, or the optimizer's state, from outside."""
        if q.head.kind == wire.SET:
            self.store.put(values_of(self.store.shard, q.tail, q.arrays))
        else:
            self.store.put_state(list(q.arrays), q.head.number)

    def say_no(self, q: Question, error: MiniparError) -> None:
        """A refusal, and an empty array for each that its worker expects."""
        if not str(error).startswith("server"):
            self.refuse(q.worker, wire.KINDS[q.head.kind], error)
            error = self.refusals.pop(q.worker)
        head = Head(wire.REFUSED, number=wire.error_number(error))
        with suppress(PeerLost):
            empty = [np.empty(0, np.uint8)] * q.head.expected
            self.send(q.worker, head, wire.text_tail(str(error)), empty)

    def send(
        self, worker: int, head: Head, tail: Sequence[int] = (), messages: Sequence[Array] = ()
    ) -> list[Pending]:
        """Begin to send; the sends under way of the arrays."""
        first = wire.pack_head(head._replace(messages=len(messages)), tail)
        self.report.bytes_out += first.nbytes + sum(a.nbytes for a in messages)
        self.world.isend(first, worker)
        return [self.world.isend(a, worker) for a in messages]
