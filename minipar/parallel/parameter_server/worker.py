r"""A worker's lines to all servers, and its clock.

    push()     gradients to every server, which lay them aside
    step()     now they count, and the clock goes on

Questions to all servers are sent before the first answer is awaited (`pulls`), so they work at the
same time. Nothing here waits for a push to arrive: the gradient's arrays go to the transport, and
must not be written to any more.
"""

from __future__ import annotations

from collections.abc import Sequence

from minipar import spans
from minipar.parallel.parameter_server import wire
from minipar.parallel.parameter_server.keys import Shard
from minipar.parallel.parameter_server.lines import Line, take
from minipar.parallel.parameter_server.payload import Values, code_of, counts_of, messages_of
from minipar.parallel.parameter_server.roles import Roles
from minipar.parallel.parameter_server.wire import Head


class Worker:
    """number: of the pushes made.  clock: the same, unless this worker was started again."""

    def __init__(self, roles: Roles, shards: Sequence[Shard], code: int = 0) -> None:
        """code: how dense gradients are written, see `payload`.  Raises: UsageError."""
        self.world, self.code = roles.world, code
        self.lines = [Line(roles, rank, shard) for rank, shard in zip(roles.server_ranks, shards)]
        self.versions: dict[str, int] = {}  # by key
        answers = [line.join() for line in self.lines]
        self.rounds, self.skip_nan, _ = map(bool, answers[0].tail)
        self.number = max(answer.head.number for answer in answers)
        self.clock = max(answer.head.clock for answer in answers)
        for line, answer in zip(self.lines, answers):
            if answer.head.clock < self.clock:  # the others are farther; be there, too
                line.join(self.clock)
        spans.mark("clock", self.world.rank, self.clock)

    def push(self, values: Sequence[Values], rows: float, finite: bool = False) -> None:
        """Give every server its gradients; they count once `step` has said so.

        values: for each server.  finite: whether they are known to be, so that no server looks.
        """
        code = code_of(self.code)
        for line, own in zip(self.lines, values):
            head = Head(
                wire.PUSH,
                clock=self.clock + 1,
                number=self.number + 1,
                version=line.pulled,
                code=self.code,
                finite=finite and not self.code,  # in float16 they may be too large
                rows=rows,
            )
            line.tell(head, counts_of(line.shard, own), messages_of(line.shard, own, code))

    def step(self, lr: float, factor: float = 1.0) -> None:
        """The push counts: this worker's clock goes on."""
        self.clock, self.number = self.clock + 1, self.number + 1
        spans.mark("clock", self.world.rank, self.clock)
        head = Head(wire.STEP, clock=self.clock, number=self.number, lr=lr, factor=factor)
        for line in self.lines:
            line.tell(head)

    def norm_squared(self) -> float:
        """Σ g² of the mean gradient of the round, once all have pushed."""
        head = Head(wire.NORM, clock=self.clock + 1)
        return sum(a.head.factor for a in take([line.ask(head) for line in self.lines]))

    def goodbye(self) -> None:
        """Be off the clock; returns when all pushes of this worker have been applied."""
        take([line.ask(Head(wire.BYE)) for line in self.lines])

    @property
    def lost(self) -> int:
        """Pushes that a server had acknowledged before it died, and that were in no snapshot."""
        return sum(line.lost for line in self.lines)
