r"""A worker's lines to all servers.

    ask()      a request to every server, and the receives for what they will answer
    take()     wait for the answers; versions are then those of the weights
    push()     gradients to every server, which lay them aside
    step()     now they count

All requests are sent before the first answer is awaited, so the servers work at the same time. The
receives are posted with the requests: large arrays come straight to where they belong, and a pull
that was asked for early comes in while this rank does something else (`prefetch`).

Nothing here waits for a push to arrive. The gradient's arrays go to the transport, and must not be
written to any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from minipar.array import Array
from minipar.comm.link import Receiving
from minipar.errors import CallMismatch
from minipar.parallel.parameter_server import wire
from minipar.parallel.parameter_server.keys import Shard
from minipar.parallel.parameter_server.payload import (
    Values,
    code_of,
    counts_of,
    messages_of,
)
from minipar.parallel.parameter_server.roles import Roles
from minipar.parallel.parameter_server.wire import Head


class Line(NamedTuple):
    """To one server: its rank, and what it has."""

    rank: int
    shard: Shard


class Answer(NamedTuple):
    """What one server said, and what came with it."""

    head: Head
    tail: list[int]
    arrays: list[Array]


class Asked(NamedTuple):
    """A question under way."""

    line: Line
    kind: int
    head: Receiving
    arrays: list[Receiving]


class Worker:
    """The number of pushes made, and a line to each server."""

    def __init__(self, roles: Roles, shards: Sequence[Shard], code: int = 0) -> None:
        """code: how dense gradients are written, see `payload`.  Raises: UsageError."""
        self.world, self.code = roles.world, code
        self.lines = [Line(rank, shard) for rank, shard in zip(roles.server_ranks, shards)]
        self.clock = self.number = 0  # the same, unless this worker was started again
        self.pulled = [0] * len(self.lines)  # the version of each server's weights here
        self.versions: dict[str, int] = {}  # by key
        self.rounds, self.skip_nan = self._hello()

    def _hello(self) -> tuple[bool, bool]:
        hello = Head(wire.HELLO)
        answers = take([self.ask(line, hello, [line.shard.checksum]) for line in self.lines])
        self.number = max(answer.head.number for answer in answers)
        self.clock = max(answer.head.clock for answer in answers)
        rounds, skip_nan = map(bool, answers[0].tail)
        return rounds, skip_nan

    # -- one server ---------------------------------------------------------------------------

    def tell(self, line: Line, head: Head, tail: Sequence[int], arrays: Sequence[Array]) -> None:
        """Send what has no answer, or has it later."""
        self.world.isend(wire.pack_head(head._replace(messages=len(arrays)), tail), line.rank)
        for array in arrays:
            self.world.isend(array, line.rank)

    def ask(
        self,
        line: Line,
        head: Head,
        tail: Sequence[int] = (),
        arrays: Sequence[Array] = (),
        outs: Sequence[Array | None] = (),
    ) -> Asked:
        """Send a question, and receive what follows its answer into the outs."""
        self.tell(line, head._replace(expected=len(outs)), tail, arrays)
        first = self.world.irecv(line.rank)
        return Asked(line, head.kind, first, [self.world.irecv(line.rank, out) for out in outs])

    # -- all servers --------------------------------------------------------------------------

    def push(self, values: Sequence[Values], rows: float) -> None:
        """Give every server its gradients; they count once `step` has said so.

        values: for each server.
        """
        code = code_of(self.code)
        for line, own, version in zip(self.lines, values, self.pulled):
            head = Head(
                wire.PUSH,
                clock=self.clock + 1,
                number=self.number + 1,
                version=version,
                code=self.code,
                rows=rows,
            )
            self.tell(line, head, counts_of(line.shard, own), messages_of(line.shard, own, code))

    def step(self, lr: float, factor: float = 1.0) -> None:
        """The push counts: this worker's clock goes on."""
        self.clock, self.number = self.clock + 1, self.number + 1
        head = Head(wire.STEP, clock=self.clock, number=self.number, lr=lr, factor=factor)
        for line in self.lines:
            self.tell(line, head, (), ())

    def norm_squared(self) -> float:
        """Σ g² of the mean gradient of the round, once all have pushed."""
        answers = take([self.ask(line, Head(wire.NORM)) for line in self.lines])
        return sum(answer.head.factor for answer in answers)

    def goodbye(self) -> None:
        for line in self.lines:
            self.tell(line, Head(wire.BYE), (), ())


def take(questions: Sequence[Asked]) -> list[Answer]:
    """The answers, all of them, before anything is raised.  Raises: what a server refused with."""
    answers = []
    for q in questions:
        head, tail = wire.unpack_head(q.head.wait())
        arrays = []
        for receiving in q.arrays:
            with suppress(*[CallMismatch] * (head.kind == wire.REFUSED)):  # empty ones
                arrays.append(receiving.wait())
        answers.append(Answer(head, tail, arrays))
    for answer in answers:
        if answer.head.kind == wire.REFUSED:
            raise wire.ERRORS[answer.head.number](wire.tail_text(answer.tail))
    return answers
