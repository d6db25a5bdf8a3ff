"""Streams over TCP: bytes in order, no blocking, and an end that is explained."""

import socket
import struct

import numpy as np
import pytest

from minipar.comm.frame import Call, header_for
from minipar.comm.hosts import tcp
from minipar.comm.hosts.tcp import TcpStream
from minipar.comm.mailbox import Mailbox, Receive
from minipar.comm.streams import Incoming, Outgoing
from minipar.errors import PeerLost


@pytest.fixture
def pair():
    """A stream as rank 0 has it to rank 1, and one the other way, and their sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield TcpStream(ours, 1, "there"), TcpStream(theirs, 0, "here"), ours, theirs


def follows(src, header, into):
    """What a rank says of the payload of a large message that comes from another host."""
    return False


def test_more_than_fits_goes_through_in_pieces(pair):
    """64 MB both ways, from one thread: a side that waited would wait for ever."""
    a, b, _, _ = pair
    x = np.arange(1 << 23, dtype=np.float64)
    call = Call(0, 0, "send", "", "here:1")
    mailboxes = Mailbox(), Mailbox()
    readers = Incoming(1, a, mailboxes[0], follows), Incoming(0, b, mailboxes[1], follows)
    messages = Outgoing(header_for(call, x), x), Outgoing(header_for(call, -x), -x)
    receives = [Receive(src, call._replace(op="recv")) for src in (1, 0)]
    for mailbox, receive in zip(mailboxes, receives, strict=True):
        mailbox.post(receive)
    while not all(receive.message for receive in receives):
        for message, stream in zip(messages, (a, b), strict=True):
            message.push(stream)
        for reader in readers:
            reader.pull()
    assert (receives[0].message.array == -x).all() and (receives[1].message.array == x).all()


def test_nothing_there_is_no_end(pair):
    a, _, _, _ = pair
    assert a.read_some(memoryview(bytearray(5))) == 0
    assert a.readable() and not a.ended


def test_the_end_of_a_rank_that_has_returned_comes_after_its_last_message(pair):
    a, b, _, _ = pair
    b.write_some(memoryview(b"last"))
    b.finish()
    a.note_finished()
    assert a.readable()  # although it has returned: there is something
    buffer = memoryview(bytearray(10))
    while not (n := a.read_some(buffer)):
        pass
    assert bytes(buffer[:n]) == b"last"
    while not a.ended:
        a.read_some(buffer)
    assert not a.readable() and b.write_some(memoryview(b"more")) == 0


@pytest.mark.parametrize(("how", "why"), [("close", "it was closed"), ("reset", "reset by peer")])
def test_an_end_that_nobody_explains_is_an_error_that_names_the_rank(pair, monkeypatch, how, why):
    a, _, _, theirs = pair
    monkeypatch.setattr(tcp, "WORD_S", 0.05)
    if how == "reset":
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(PeerLost, match=f"connection to rank 1 at there is lost: .*{why}"):
        while a.readable():
            if how == "reset":
                a.write_some(memoryview(b"x"))
            a.read_some(memoryview(bytearray(10)))
        while True:
            a.readable()


def test_the_kernel_is_told_to_notice_a_dead_link(pair):
    _, _, ours, _ = pair
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
