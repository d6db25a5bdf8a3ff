"""Messages over the inherited socket."""

import socket

from minipar.comm.control import receive_message, send_message


def test_round_trip_and_end():
    a, b = socket.socketpair()
    assert send_message(a, "start", 3, {"x": b"1" * 1000})
    assert receive_message(b) == ("start", 3, {"x": b"1" * 1000})
    a.close()
    assert receive_message(b) is None
    assert not send_message(b, "too late")
    b.close()


def test_half_a_message_is_the_end_too():
    a, b = socket.socketpair()
    a.sendall(b"\x10\0\0\0\0\0\0\0half")
    a.close()
    assert receive_message(b) is None
    b.close()
