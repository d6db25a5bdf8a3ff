"""Messages through rings of any size, in any pieces."""

import numpy as np
import pytest

from minipar.comm.byte_ring import COUNTER_BYTES, ByteRing
from minipar.comm.frame import Call, header_for
from minipar.comm.mailbox import Mailbox, Receive
from minipar.comm.streams import Incoming, Outgoing, left_in

SEND, RECV = Call(0, 0, "send", "", "here:1"), Call(0, 0, "recv", "", "here:2")
ARRAYS = (
    np.arange(100.0),
    np.zeros(0),
    np.array(5),
    np.arange(24).reshape(4, 6).T,
    np.ones(3, "?"),
)


def ring_of(capacity):
    return ByteRing(memoryview(bytearray(2 * COUNTER_BYTES + capacity)))


@pytest.mark.parametrize("capacity", [1, 50, 296, 5000])
@pytest.mark.parametrize("into", [False, True])
def test_what_goes_in_comes_out_in_order(capacity, into):
    ring, mailbox = ring_of(capacity), Mailbox()
    incoming = Incoming(3, ring, mailbox, None)
    receives = [Receive(3, RECV, np.empty_like(x) if into else None) for x in ARRAYS]
    for receive in receives:
        mailbox.post(receive)
    for x in ARRAYS:
        message = Outgoing(header_for(SEND, x), x)
        while not message.done:
            message.push(ring)
            incoming.pull()
    while incoming.pull():
        pass
    for x, receive in zip(ARRAYS, receives, strict=True):
        got = receive.message.array
        assert got.shape == x.shape and got.dtype == x.dtype and (got == x).all()
        assert not into or got is receive.out
        assert receive.message.src == 3


def test_a_payload_that_is_fetched_from_where_it_lies():
    ring, mailbox, heap = ring_of(1000), Mailbox(), {}

    def fetch(src, header, into):
        into[...] = heap[src, header.place - 1]
        return True

    incoming = Incoming(3, ring, mailbox, fetch)
    for i, x in enumerate((np.arange(6.0).reshape(2, 3), np.arange(5))):
        heap[3, 100 * i] = x
        message = Outgoing(header_for(SEND, x)._replace(place=1 + 100 * i), x)
        assert len(message.parts) == 1  # the header alone
        message.push(ring)
    while incoming.pull():
        pass
    for x in heap.values():
        receive = Receive(3, RECV)
        mailbox.post(receive)
        assert np.array_equal(receive.message.array, x)


def test_a_kept_message_no_longer_needs_the_senders_array():
    ring, mailbox, x = ring_of(100), Mailbox(), np.arange(50)
    message = Outgoing(header_for(SEND, x), x)
    message.push(ring)
    message.keep()
    x[:] = 0
    incoming = Incoming(0, ring, mailbox, None)
    while message.parts:
        message.push(ring)
        incoming.pull()
    receive = Receive(0, RECV)
    mailbox.post(receive)
    assert (receive.message.array == np.arange(50)).all()


@pytest.mark.parametrize(("op", "found"), [("send", False), ("broadcast", True)])
def test_a_collective_left_in_a_ring_is_found(op, found):
    ring, x = ring_of(1000), np.zeros(2)
    assert left_in(ring, 0, 1, str) is None
    Outgoing(header_for(SEND._replace(op=op), x), x).push(ring)
    error = left_in(ring, 0, 1, str)
    assert (error is not None) == found
    assert not found or "rank 1 has returned, but never took part in rank 0's broadcast" in str(
        error
    )


def test_a_stream_that_is_cut_gives_what_is_complete_and_then_belongs_to_the_next():
    ring, mailbox = ring_of(5000), Mailbox()
    incoming = Incoming(3, ring, mailbox, None)
    whole, half = np.arange(10.0), np.arange(1000.0)
    for x in (whole, half):
        Outgoing(header_for(SEND, x), x).push(ring)
    incoming.cut()
    assert mailbox.left(RECV.lane, 3, 0) and not incoming.readable() and not incoming.pull()
    ring.clear()
    Outgoing(header_for(SEND, half[:9]), half[:9]).push(ring)
    assert not incoming.pull()
    incoming.open(ring, 1)
    assert incoming.pull()
    receives = [Receive(3, RECV) for _ in range(3)]
    for receive in receives:
        mailbox.post(receive)
    got = [r.message and (r.message.incarnation, r.message.array.size) for r in receives]
    assert got == [(0, 10), (1, 9), None]
