"""Queues, rings and a mailbox, without processes; with them: test_process.py, test_losses.py."""

import os

import numpy as np
import pytest

from minipar.comm.channels import KEPT_MESSAGES, Channels
from minipar.comm.frame import Call, header_for
from minipar.comm.mailbox import Mailbox, Receive
from minipar.comm.segment import Segment, create_segment
from minipar.errors import CommError

CALL = Call(0, 0, "send", "", "a.py:1")
LARGE = 1 << 18  # numbers: 2 MB, more than a ring holds


@pytest.fixture
def two():
    """Both ends of the rings between two ranks, each with the mailbox behind it."""
    descriptor = create_segment(2)
    segment = Segment(descriptor, 2)
    os.close(descriptor)
    boxes = Mailbox(), Mailbox()
    rings = [{1 - r: (segment.ring(r, 1 - r), segment.ring(1 - r, r))} for r in range(2)]
    return [(Channels(r, rings[r], boxes[r]), boxes[r]) for r in range(2)]


def send(channels, x, dst):
    return channels.send(header_for(CALL, x), x, dst)


def move_all(two):
    (zero, _), (one, _) = two
    while zero.move() | one.move():
        """Until nothing moves any more."""


def taken(mailbox, src):
    """The next message from that rank: its array, None if there is none yet."""
    receive = Receive(src, CALL)
    mailbox.post(receive)
    if receive.message is None:
        mailbox.withdraw(receive)
        return None
    return receive.message.array


def test_opposite_sends_of_more_than_the_rings_hold_do_not_block_each_other(two):
    sent = [np.full(LARGE, r) for r in range(2)]
    done = [send(channels, x, 1 - r) for r, ((channels, _), x) in enumerate(zip(two, sent))]
    assert not done[0]() and not done[1]()
    move_all(two)
    assert done[0]() and done[1]()
    for r, (_, mailbox) in enumerate(two):
        assert np.array_equal(taken(mailbox, 1 - r), sent[1 - r])


def test_small_arrays_are_free_at_once_as_long_as_the_queue_is_short(two):
    (zero, _), (_, mailbox) = two
    large = np.zeros(LARGE)
    assert not send(zero, large, 1)()
    small = np.ones(1)
    done = [send(zero, small, 1)() for _ in range(KEPT_MESSAGES)]
    assert done == [True] * (KEPT_MESSAGES - 1) + [False]
    small[:] = 2
    move_all(two)
    assert np.array_equal(taken(mailbox, 0), large)
    assert [taken(mailbox, 0)[0] for _ in done] == [1] * (KEPT_MESSAGES - 1) + [2]


def test_of_a_lost_rank_what_was_complete_is_taken_and_the_rest_forgotten(two):
    (zero, mailbox), (one, _) = two
    send(one, np.ones(1), 0)
    send(one, np.zeros(LARGE), 0)
    send(zero, np.zeros(LARGE), 1)
    with zero.lock:
        zero.forget(1)
    assert taken(mailbox, 1) == 1 and taken(mailbox, 1) is None
    assert not zero.queues[1] and not zero.move() and not zero.readable([1])
    one.close(0)
    one.open(0, 0)
    assert not one.readable([0])  # of what was on its way
    zero.open(1, 1)
    send(one, np.full(1, 3.0), 0)
    assert zero.readable([1]) and zero.move()
    receive = Receive(1, CALL)
    mailbox.post(receive)
    assert receive.message.incarnation == 1 and receive.message.array == 3


def test_a_place_in_memory_that_is_not_shared_is_an_error(two):
    (zero, _), (one, _) = two
    x = np.zeros(LARGE)
    one.send(header_for(CALL, x)._replace(place=17), x, 0)
    with pytest.raises(CommError, match="rank 1 points to memory that rank 0 cannot reach"):
        zero.move()


def test_while_one_thread_moves_the_other_does_not(two):
    (zero, mailbox), (one, _) = two
    send(one, np.ones(1), 0)
    with zero.lock:
        assert not zero.move()
    assert zero.move() and taken(mailbox, 1) == 1
