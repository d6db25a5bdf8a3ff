r"""Who has pushed what, and what of it counts: the clocks of all workers. No messages here.

    PUSH   laid aside: pushes[worker]                   may be replaced, or vanish with its worker
    STEP   it counts: the worker's clock goes on        async, ssp: it is applied
                                                        sync: when the round is complete, with it

A round is complete when all who are present have reached its clock. The pushes of a round are added
up in the order of their workers, not of their arrival, so the result is the same to the bit. They
wait for each other here, in the memory of the server: one gradient for each worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from minipar import spans
from minipar.parallel.parameter_server.payload import Values
from minipar.parallel.parameter_server.report import Record, Report
from minipar.parallel.parameter_server.rules import Rule
from minipar.parallel.parameter_server.store import Store, mean
from minipar.parallel.parameter_server.wire import Head


class Push(NamedTuple):
    """Gradients that have been laid aside."""

    rows: float  # which they are the mean of; 0 if there are none
    version: int  # of the weights that they were computed with
    gradients: Values


class Book:
    """clocks: of the workers that are present.  numbers: of the last push of each that counts."""

    def __init__(self, workers: Iterable[int], store: Store, rule: Rule) -> None:
        self.store, self.rule, self.report = store, rule, Report()
        self.clocks = dict.fromkeys(workers, 0)
        self.numbers = dict(self.clocks)
        self.pushes: dict[int, Push] = {}
        self.steps: dict[int, Head] = {}  # in rounds: of whose push counts, and is not applied yet
        self._mean: Values | None = None  # of the round, once somebody knows it

    def lay_aside(self, worker: int, number: int, push: Push) -> None:
        """Keep a push until its worker says that it counts."""
        known = self._mean is not None and worker in self.pushes
        if number > self.numbers[worker] and not known:
            self.pushes[worker] = push

    def step(self, worker: int, head: Head) -> None:
        """The worker's push counts, unless it does already or was refused."""
        if head.number <= self.numbers[worker]:
            self.report.repeated += 1
        elif worker in self.pushes:
            self.numbers[worker], self.clocks[worker] = head.number, head.clock
            self.steps[worker] = head
            if not self.rule.rounds:
                self._apply([worker])

    def close_round(self) -> None:
        """Apply the pushes of a round if it is complete: whenever a clock has changed."""
        if self.steps and self.complete(min(head.clock for head in self.steps.values())):
            self._apply(sorted(self.steps))

    def complete(self, clock: int, given: Iterable[int] = ()) -> bool:
        """Whether all who are present have reached that clock, or are among the given."""
        return all(c >= clock or worker in given for worker, c in self.clocks.items())

    def slowest(self) -> int:
        """Whom a round, or the rule, waits for."""
        return min(self.clocks, key=lambda worker: (self.clocks[worker], worker in self.pushes))

    def mean(self) -> Values:
        """The mean gradient of the round. From now on its pushes stay as they are."""
        if self._mean is None:
            pushes = [self.pushes[worker] for worker in sorted(self.pushes)]
            self._mean = mean((push.rows, push.gradients) for push in pushes)
        return self._mean

    def drop(self, worker: int) -> None:
        """What the worker has not said to count is gone, unless others know it already."""
        if worker not in self.steps and self._mean is None:
            self.pushes.pop(worker, None)

    def forget(self, worker: int) -> None:
        """The worker is off the clock."""
        if worker in self.clocks:
            spans.mark("gone", worker, self.clocks.pop(worker))
        self.drop(worker)

    def return_at(self, worker: int, clock: int | None) -> None:
        """Put the worker on the clock.  clock: None if it has none, and begins with the slowest."""
        if clock is not None:
            self.clocks[worker] = clock
        elif worker not in self.clocks:
            self.clocks[worker] = min(self.clocks.values(), default=self.numbers[worker])

    def _apply(self, workers: Sequence[int]) -> None:
        """One update, with the mean of these workers' pushes."""
        version, head = self.store.updates, self.steps[workers[0]]
        together = self.rule.rounds
        gradients = self.mean() if together else self.pushes[workers[0]].gradients
        if gradients:
            self.store.update(gradients, head.lr, head.factor)
        for worker in workers:
            push, step = self.pushes[worker], self.steps.pop(worker)
            if push.gradients:
                pulled = min(push.version, version)  # of before a crash, versions may be higher
                self.report.note(Record(worker, step.clock, pulled, version))
                spans.mark("version", worker, self.store.updates, lag=version - pulled)
        self._mean = None
        for worker in list(self.pushes) if together else workers:
            del self.pushes[worker]
