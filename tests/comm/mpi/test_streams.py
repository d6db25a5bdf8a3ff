"""Messages over MPI, on a network that a test can hold: what is sent, and where it arrives."""

import numpy as np
import pytest

from minipar.comm.frame import HEADER_BYTES, Call, header_for
from minipar.comm.mailbox import Mailbox, Receive
from minipar.comm.mpi import streams
from minipar.comm.mpi.streams import HEAD, INLINE_BYTES, PAYLOAD, Arriving, Sending

SEND, RECV = Call(0, 0, "send", "", "here:1"), Call(0, 0, "recv", "", "here:2")


class Request:
    """Done when its receiver has asked for it."""

    def __init__(self, raw):
        self.raw, self.arrived = raw, False

    def Test(self):
        return self.arrived


class Wire:
    """MPI between two ranks, in which nothing is buffered and nothing arrives until `carry`."""

    def __init__(self):
        self.sent = {HEAD: [], PAYLOAD: []}
        self.asked = []
        self.sizes = []

    def Isend(self, raw, dst, tag):
        request = Request(raw)
        self.sent[tag].append(request)
        self.sizes.append(len(raw))
        return request

    def Irecv(self, place, src, tag):
        assert tag == PAYLOAD
        request = Request(place)
        self.asked.append(request)
        return request

    def carry(self, arriving):
        """Let everything arrive that can."""
        while True:
            if self.asked:
                here, there = self.asked.pop(0), self.sent[PAYLOAD].pop(0)
                here.raw[:] = there.raw
                here.arrived = there.arrived = True
                arriving.pull()
            elif self.sent[HEAD]:
                head = self.sent[HEAD].pop(0)
                head.arrived = True
                arriving.hear(bytearray(head.raw))
            else:
                return


ARRAYS = (
    np.zeros(0),
    np.array(5),
    np.ones(3, "?"),
    np.arange(INLINE_BYTES, dtype="u1"),
    np.arange(INLINE_BYTES + 1, dtype="u1"),
    np.arange(24_000).reshape(40, 600).T,
)


@pytest.mark.parametrize("piece_bytes", [1000, 1 << 30])
@pytest.mark.parametrize("into", [False, True])
def test_what_is_sent_arrives_in_order(into, piece_bytes, monkeypatch):
    monkeypatch.setattr(streams, "PIECE_BYTES", piece_bytes)
    wire, mailbox = Wire(), Mailbox()
    receives = [Receive(3, RECV, np.empty_like(x, order="C") if into else None) for x in ARRAYS]
    for receive in receives:
        mailbox.post(receive)
    sendings = [Sending(wire, 0, header_for(SEND, x), x) for x in ARRAYS]
    assert not any(sending.look() for sending in sendings)
    wire.carry(Arriving(wire, 3, mailbox))
    assert all(sending.look() for sending in sendings)
    assert max(wire.sizes) <= max(piece_bytes, HEADER_BYTES + INLINE_BYTES)
    for x, receive in zip(ARRAYS, receives, strict=True):
        got = receive.message.array
        assert got.shape == x.shape and got.dtype == x.dtype and (got == x).all()
        assert not into or got is receive.out
        assert receive.message.src == 3


def test_a_small_message_does_not_overtake_a_large_one():
    wire, mailbox = Wire(), Mailbox()
    arriving = Arriving(wire, 3, mailbox)
    for x in (np.full(INLINE_BYTES, 1.0), np.full(2, 2.0)):
        Sending(wire, 0, header_for(SEND, x), x)
    for head in wire.sent[HEAD]:  # both headers are here, the payload is not
        arriving.hear(bytearray(head.raw))
    receive = Receive(3, RECV)
    mailbox.post(receive)
    assert receive.message is None and arriving.under_way
    wire.sent[HEAD].clear()
    wire.carry(arriving)
    assert receive.message.array[0] == 1 and not arriving.under_way
