"""Each promise can be broken, and the one that is broken is named: a transport for each mistake."""

import subprocess
import sys

import pytest

import minipar
from minipar.comm.frame import header_for
from minipar.comm.group import Group
from minipar.comm.local_transport import LocalTransport
from minipar.comm.transport import BUFFERED_BYTES, Message, Pending
from minipar.testing import PROMISES, PromiseBroken, check_transport

ASTRAY = 3  # the message with which the mistakes happen


class Mistaken(LocalTransport):
    """A local transport in which `post` may do something wrong with sends between ranks."""

    def __init__(self, group):
        super().__init__(group._transport._world, group.rank)
        self.count = 0

    def isend(self, array, dst, call):
        if call.op != "send":
            return super().isend(array, dst, call)
        self.count += 1
        return self.post(array, dst, call) or Pending(self, lambda: True, dst, call)

    def deliver(self, array, dst, call, header=None):
        message = Message(self.rank, header or header_for(call, array), array)
        self._world.mail[dst].deliver(message)


class Drops(Mistaken):
    def post(self, array, dst, call):
        if self.count != ASTRAY:
            self.deliver(array.copy(), dst, call)


class SendsTwice(Mistaken):
    def post(self, array, dst, call):
        for _ in range(2 if self.count == 2 else 1):
            self.deliver(array.copy(), dst, call)


class Reorders(Mistaken):
    """Large messages go at once, small ones wait for the next message."""

    held = None

    def post(self, array, dst, call):
        held, self.held = self.held, None
        if held is None and array.size == 4:
            self.held = array.copy(), dst, call
            return
        self.deliver(array.copy(), dst, call)
        if held is not None:
            self.deliver(*held)


class Aliases(Mistaken):
    """Sender and receiver have the same memory; the sender is told that it is free."""

    def post(self, array, dst, call):
        self.deliver(array, dst, call)


class AliasesUntilTaken(Mistaken):
    """The sender may change its array only once it is taken; but both have it then."""

    def post(self, array, dst, call):
        message = Message(self.rank, header_for(call, array), array)
        self._world.mail[dst].deliver(message)
        return Pending(self, lambda: message.taken, dst, call)


class LosesShape(Mistaken):
    def post(self, array, dst, call):
        self.deliver(array.reshape(-1).copy(), dst, call)


class LosesDtype(Mistaken):
    def post(self, array, dst, call):
        array = array.astype(float)
        self.deliver(array, dst, call)


class CutsLarge(Mistaken):
    def post(self, array, dst, call):
        self.deliver(array.reshape(-1)[: BUFFERED_BYTES // 8].copy(), dst, call)


class NotToItself(Mistaken):
    def post(self, array, dst, call):
        if dst != self.rank:
            self.deliver(array.copy(), dst, call)


class MixesGroups(LocalTransport):
    def __init__(self, group):
        super().__init__(group._transport._world, group.rank)

    def isend(self, array, dst, call):
        return super().isend(array, dst, call._replace(group=0))

    def irecv(self, src, call, out=None):
        return super().irecv(src, call._replace(group=0), out)


class ForgetsOut(MixesGroups):
    isend = LocalTransport.isend

    def irecv(self, src, call, out=None):
        return LocalTransport.irecv(self, src, call)


class MakesHeadersUp(ForgetsOut):
    def irecv(self, src, call, out=None):
        pending = LocalTransport.irecv(self, src, call)
        if out is not None:
            wait = pending.wait

            def filled():
                message = wait()
                out.reshape(-1)[: message.array.size] = message.array.reshape(-1)
                message.array = out
                return message

            pending.wait = filled
        return pending


class PollsAlways(ForgetsOut):
    irecv = LocalTransport.irecv

    def poll(self, src, call):
        return True


class PollsNever(PollsAlways):
    def poll(self, src, call):
        self.progress()  # raises once the job has ended; else who asks in a loop would ask for ever
        return False


class NeverDone(PollsAlways):
    poll = LocalTransport.poll

    def irecv(self, src, call, out=None):
        pending = super().irecv(src, call, out)
        pending.done = lambda: bool(self.progress())
        return pending


class NamesTheWrongSender(PollsAlways):
    poll = LocalTransport.poll

    def isend(self, array, dst, call):
        if self.rank == 2 and dst == 0 and call.op == "send":
            message = Message(1, header_for(call, array), array.copy())
            self._world.mail[dst].deliver(message)
            return Pending(self, lambda: True, dst, call)
        return super().isend(array, dst, call)


def rendezvous(group):
    """A send waits for its receive, whatever its size."""
    group._transport._world.buffer_bytes = 0
    return group._transport


@pytest.mark.parametrize(
    ("transport", "promise", "says"),
    [
        (Drops, "order_is_kept", r"message 2 .* is int64\[3\] \[3 3 3\], expected int64\[2\]"),
        (SendsTwice, "a_message_arrives", "yet there is another one"),
        (Reorders, "order_is_kept", r"message 4 from rank . is int64\[100000\] \[5 5 5"),
        (Aliases, "a_sent_array_may_change", "sent, then changed, is .* -1"),
        (AliasesUntilTaken, "a_received_array_is_the_receivers", "after its receiver wrote"),
        (LosesShape, "shape_and_dtype_arrive", r"is bool\[1\] .* expected bool\[\]"),
        (LosesDtype, "shape_and_dtype_arrive", r"a message of bool\[\] is float64\[\]"),
        (CutsLarge, "a_message_arrives", r"is int64\[32768\] .*, expected int64\[100000\]"),
        (rendezvous, "opposite_sends_do_not_block", "Deadlock: no rank can go on"),
        (rendezvous, "small_sends_wait_for_nobody", "Deadlock: no rank can go on"),
        (NotToItself, "a_rank_may_send_to_itself", "rank 0 waits for rank 0"),
        (NamesTheWrongSender, "any_takes_each_once", r"senders is .*\[1 1\], expected .*\[1 2\]"),
        (ForgetsOut, "out_is_filled", "`out` is not passed on"),
        (MakesHeadersUp, "a_wrong_shape_is_told", "nothing was said"),
        (PollsAlways, "done_and_poll_tell_the_truth", "has sent nothing, but there is something"),
        (PollsNever, "done_and_poll_tell_the_truth", "not come back after .* s; it stands at"),
        (NeverDone, "done_and_poll_tell_the_truth", "not come back after .* s; it stands at"),
        (MixesGroups, "calls_and_groups_stay_apart", "expected"),
    ],
)
def test_a_broken_transport_is_caught_at_its_promise(transport, promise, says):
    promises = [p for p in PROMISES if p.__name__ == promise]
    patience_s = 0.5 if "come back" in says else 60

    def work(group):
        check_transport(Group(transport(group)), promises, patience_s)

    with pytest.raises(PromiseBroken, match=rf"^rank ./3: {promise} does not hold: (.|\n)*{says}"):
        minipar.run(work, 3)


def test_every_promise_says_what_it_is_and_why_it_is_broken():
    for promise in PROMISES:
        first, *rest = promise.__doc__.splitlines()
        assert first.endswith(".") and any("Usual cause: " in line for line in rest), promise


def test_importing_the_checks_needs_no_pytest():
    code = "import sys, minipar.testing; sys.exit('pytest' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=minipar.__path__[0] + "/..").returncode
        == 0
    )
