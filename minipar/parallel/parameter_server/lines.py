r"""A worker's line to one server: questions and their answers, and pushes until they count.

    the server dies, and is started again from its last snapshot, which knows pushes up to 7

    this worker    pushes     ... 7   8   9 │ 10                 HELLO 9 ->   <- 2 are lost
                              acknowledged  │ not yet            sends 10 again, and asks again

A push is kept until an answer has acknowledged it. What was acknowledged and is not in the snapshot
is lost; the server reports that. What was not acknowledged is sent again, and since pushes have
numbers, a server that had applied it after all does not do so twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from minipar.array import Array
from minipar.comm.link import Receiving
from minipar.comm.transport import Pending
from minipar.errors import CallMismatch, PeerLost
from minipar.parallel.parameter_server import wire
from minipar.parallel.parameter_server.keys import Shard
from minipar.parallel.parameter_server.roles import Roles
from minipar.parallel.parameter_server.wire import Head

LOST = 2  # in the answer to HELLO: behind what the rule is


class Answer(NamedTuple):
    """What a server said, and what came with it."""

    head: Head
    tail: list[int]
    arrays: list[Array]


class Line:
    """To one server."""

    def __init__(self, roles: Roles, rank: int, shard: Shard) -> None:
        """rank: of the server."""
        self.world, self.rank, self.shard = roles.world, rank, shard
        self.pulled = 0  # the version of its weights that are here
        self.number = self.clock = 0  # of the last push that it has acknowledged
        self.lost = 0  # pushes that it had acknowledged, and does not know any more
        self._kept: list[tuple[Head, Sequence[int], Sequence[Array]]] = []  # PUSH, STEP, in order
        self._sending: list[Pending] = []  # arrays under way

    # -- pushes -------------------------------------------------------------------------------

    def tell(self, head: Head, tail: Sequence[int] = (), arrays: Sequence[Array] = ()) -> None:
        """Send a part of a push, and keep it."""
        if head.kind == wire.PUSH:  # another one of that number was refused
            self._kept = [k for k in self._kept if k[0].number != head.number]
        self._kept.append((head, tail, arrays))
        try:
            self.send(head, tail, arrays)
        except PeerLost as lost:
            self.reconnect(lost)

    def acknowledge(self, number: int) -> None:
        """Pushes up to that number count."""
        for head, _, _ in self._kept:
            if head.number <= number:
                self.number, self.clock = head.number, head.clock
        self._kept = [k for k in self._kept if k[0].number > number]

    def send(self, head: Head, tail: Sequence[int] = (), arrays: Sequence[Array] = ()) -> None:
        self.world.isend(wire.pack_head(head._replace(messages=len(arrays)), tail), self.rank)
        self._sending += [self.world.isend(array, self.rank) for array in arrays]

    def lend_a_hand(self) -> None:
        """Wait until what was sent is there: whoever waits in a send helps to copy it (`loans`)."""
        sending, self._sending = self._sending, []
        with suppress(PeerLost):  # the answer to come will say so
            for pending in sending:
                pending.wait()

    # -- questions ----------------------------------------------------------------------------

    def ask(
        self,
        head: Head,
        tail: Sequence[int] = (),
        arrays: Sequence[Array] = (),
        outs: Sequence[Array | None] = (),
    ) -> Question:
        """Send a question, and receive what follows its answer into the outs."""
        question = Question(self, head._replace(expected=len(outs)), tail, arrays, outs)
        try:
            question.send()
        except PeerLost as lost:
            self.reconnect(lost)
            question.send()
        return question

    def join(self, clock: int = wire.NEW) -> Answer:
        """Say hello for the first time, at that clock, or at one that the server chooses."""
        self.clock = clock
        while True:
            try:
                answer = self._hello()
            except PeerLost as lost:
                if not returns(lost):
                    raise
            else:
                self.number, self.clock = answer.head.number, answer.head.clock
                return answer

    def reconnect(self, lost: PeerLost) -> None:
        """Say hello to the server's next incarnation, and send again what it may not have.

        Raises: PeerLost if there is none.
        """
        while returns(lost):
            try:
                self.lost += self._hello().tail[LOST]
                for head, tail, arrays in self._kept:
                    self.send(head, tail, arrays)
                return
            except PeerLost as again:
                lost = again
        raise lost

    def _hello(self) -> Answer:
        head = Head(wire.HELLO, clock=self.clock, number=self.number)
        question = Question(self, head, [self.shard.checksum], (), ())
        question.send()
        return checked(question.receive())


class Question:
    """A question under way."""

    def __init__(
        self,
        line: Line,
        head: Head,
        tail: Sequence[int],
        arrays: Sequence[Array],
        outs: Sequence[Array | None],
    ) -> None:
        self.line, self.head, self.tail, self.arrays, self.outs = line, head, tail, arrays, outs
        self._receives: list[Receiving] = []

    def send(self) -> None:
        line = self.line
        line.send(self.head, self.tail, self.arrays)
        self._receives = [line.world.irecv(line.rank, out) for out in (None, *self.outs)]

    def take(self) -> Answer:
        """Wait for the answer; ask again if the server is lost, and comes back."""
        self.line.lend_a_hand()
        while True:
            try:
                return self.receive()
            except PeerLost as lost:
                self.line.reconnect(lost)
                with suppress(PeerLost):  # `receive` meets it again
                    self.send()

    def receive(self) -> Answer:
        first, *rest = self._receives
        head, tail = wire.unpack_head(first.wait())
        arrays = []
        for receiving in rest:
            with suppress(*[CallMismatch] * (head.kind == wire.REFUSED)):  # they are empty
                arrays.append(receiving.wait())
        self.line.acknowledge(head.number)
        return Answer(head, tail, arrays)


def take(questions: Sequence[Question]) -> list[Answer]:
    """All answers.  Raises: what a server refused with, once all of them are there."""
    return list(map(checked, [question.take() for question in questions]))


def checked(answer: Answer) -> Answer:
    """Raises: the error, if it is a refusal."""
    if answer.head.kind == wire.REFUSED:
        raise wire.ERRORS[answer.head.code](wire.tail_text(answer.tail))
    return answer


def returns(lost: PeerLost) -> bool:
    """Whether the lost rank is started again."""
    return lost.returns
