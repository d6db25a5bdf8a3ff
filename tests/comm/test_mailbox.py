"""What the mailbox does: order, lanes, and what nobody asked for."""

import numpy as np
import pytest

from minipar.comm.frame import Call, header_for
from minipar.comm.mailbox import Mailbox, Receive, pending_receive
from minipar.comm.transport import ANY, Message

SEND, RECV = Call(0, 0, "send", "", "here:1"), Call(0, 0, "recv", "", "here:2")
OTHER_GROUP = RECV._replace(group=9)
BARRIER = RECV._replace(op="barrier")


def message(src, value, call=SEND):
    array = np.array([value])
    return Message(src, header_for(call, array), array)


def test_mailbox_keeps_the_order_of_one_sender_before_and_after_receives_are_posted():
    box, early, late = Mailbox(), Receive(1, RECV), Receive(1, RECV)
    box.post(early)
    for value in (10, 11, 12):
        box.deliver(message(1, value))
    box.post(late)
    assert (early.message.array[0], late.message.array[0]) == (10, 11)
    assert box.holds(1, RECV) and box.holds(ANY, RECV) and not box.holds(2, RECV)


def test_mailbox_keeps_groups_senders_and_collectives_apart():
    box = Mailbox()
    wants = [Receive(1, RECV), Receive(2, RECV), Receive(1, OTHER_GROUP), Receive(1, BARRIER)]
    for receive in wants:
        box.post(receive)
    box.deliver(message(1, 5, OTHER_GROUP))
    box.deliver(message(2, 6))
    box.deliver(message(1, 7, BARRIER))
    assert [r.message and int(r.message.array[0]) for r in wants] == [None, 6, 5, 7]


def test_what_nobody_asked_for_is_named():
    box = Mailbox()
    assert box.unasked(ANY) == ""
    box.deliver(message(3, 1, BARRIER))
    box.deliver(message(3, 1))
    assert box.unasked(3) == "; not asked for so far: rank 3's barrier #0 at here:2 and 1 more"
    assert box.unasked(2) == ""


def test_any_takes_the_first_that_comes():
    box, receive = Mailbox(), Receive(ANY, RECV)
    box.deliver(message(3, 1))
    box.deliver(message(2, 2))
    box.post(receive)
    assert receive.message.src == 3


@pytest.mark.parametrize("out", [np.zeros(2), np.zeros(1, np.float32), np.zeros((1, 1))])
def test_a_receive_does_not_write_into_an_array_that_does_not_fit(out):
    receive = Receive(1, RECV, out)
    receive.take(message(1, 7))
    assert (out == 0).all() and receive.message.array is not out


REDUCE = Call(0, 5, "all_reduce", "sum float64[1] by ring", "here:3")


@pytest.mark.parametrize(
    ("other", "contradicts"),
    [
        (REDUCE._replace(site="there:4"), False),  # the same call, on another line
        (REDUCE._replace(sequence=6, op="barrier"), False),  # a rank that is ahead
        (REDUCE._replace(signature="sum float64[1] by tree"), True),
        (REDUCE._replace(op="barrier", signature=""), True),
        (REDUCE._replace(sequence=4), True),  # a message that nobody took in an earlier call
        (REDUCE._replace(group=1, op="barrier"), False),
        (SEND._replace(sequence=5), False),
    ],
)
def test_a_message_that_no_right_program_sends_ends_the_wait_for_another(other, contradicts):
    box = Mailbox()
    box.deliver(message(2, 1, other))
    pending = pending_receive(None, box, Receive(1, REDUCE), REDUCE)
    assert (box.contradiction(REDUCE) is not None) == contradicts
    if contradicts:
        assert pending.wait().header.call == other


def test_sends_and_receives_contradict_nothing():
    box = Mailbox()
    box.deliver(message(2, 1))
    assert box.contradiction(RECV._replace(sequence=3)) is None
