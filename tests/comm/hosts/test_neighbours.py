"""What a rank is told of the others reaches it whole; what ranks do with it: test_network.py."""

from minipar.comm.control import decode, encode
from minipar.comm.hosts.neighbours import Neighbours


def test_it_goes_over_the_control_socket_as_it_is():
    told = Neighbours(range(2, 4), 7, (("127.0.0.1", 40001), ("10.0.0.2", 40002)), b"\0secret\xff")
    buffer = bytearray(encode("start", told))
    ((kind, heard),) = decode(buffer)
    assert kind == "start" and isinstance(heard, Neighbours) and heard == told
    assert not buffer
