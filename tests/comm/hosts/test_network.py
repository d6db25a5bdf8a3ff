"""Ranks that connect to each other, in threads: all pairs, strangers among them, some missing."""

import socket
import threading

import pytest

from minipar.comm.hosts import network
from minipar.comm.hosts.neighbours import Neighbours
from minipar.comm.hosts.network import connect
from minipar.errors import PeerLost
from tests.comm.several import strangers


@pytest.fixture
def listeners():
    sockets = [socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(4)]
    yield sockets
    for sock in sockets:
        sock.close()


def known(listeners, rank, secret=b"secret"):
    """Each two ranks are on a host of their own: 0 and 1, 2 and 3."""
    first = rank // 2 * 2
    addresses = tuple(sock.getsockname() for sock in listeners)
    return Neighbours(range(first, first + 2), listeners[rank].fileno(), addresses, secret)


def connect_all(listeners, ranks, timeout_s=20.0, secrets=(b"secret",) * 4):
    found = {}
    neighbours = {rank: known(listeners, rank, secrets[rank]) for rank in ranks}  # while all listen

    def one(rank):
        try:
            found[rank] = connect(rank, neighbours[rank], timeout_s)
        except PeerLost as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sock in (listeners[rank] for rank in ranks):  # `connect` has it, and has closed it
        sock.detach()
    return found


@pytest.mark.parametrize("crowd", [0, pytest.param(80, marks=pytest.mark.slow)])
def test_each_rank_is_connected_to_those_of_other_hosts(listeners, crowd):
    with strangers(listeners[0].getsockname(), crowd):
        found = connect_all(listeners, range(4))
    assert {r: set(streams) for r, streams in found.items()} == {
        0: {2, 3},
        1: {2, 3},
        2: {0, 1},
        3: {0, 1},
    }
    target = memoryview(bytearray(1))
    for r, streams in found.items():
        for other, stream in streams.items():
            stream.write_some(memoryview(bytes([10 * r + other])))
    for r, streams in found.items():
        for other, stream in streams.items():
            while not stream.read_some(target):
                pass
            assert target[0] == 10 * other + r
    for streams in found.values():
        for stream in streams.values():
            stream._sock.close()


def test_those_who_do_not_call_are_named(listeners):
    found = connect_all(listeners, (0, 2), timeout_s=1.0)
    assert str(found[0]).startswith(
        "rank 0 at 127.0.0.1 has waited 1 s for the connection from rank 3.\nUsual cause: a firewal"
    )


def test_those_who_cannot_be_reached_are_named(listeners):
    others = known(listeners, 2)
    port = listeners[0].getsockname()[1]
    listeners[0].close()
    with pytest.raises(
        PeerLost, match=rf"rank 2 cannot reach rank 0 at 127.0.0.1:{port}: .*efused"
    ):
        connect(2, others, 0.3)
    listeners[2].detach()  # `connect` has closed it


def test_a_rank_without_the_secret_is_not_connected(listeners):
    found = connect_all(listeners, (0, 2), timeout_s=1.0, secrets=[b"secret", b"", b"another", b""])
    assert "rank 2 cannot reach rank 0" in str(found[2])
    assert "the connection from rank 2, 3" in str(found[0])


def test_without_other_hosts_there_is_nothing_to_connect(listeners):
    alone = Neighbours(range(2), -1, (("h", 0),) * 2, b"")
    assert connect(0, alone, 1.0) == {}
    assert network.Network({}).last_look(None) is None
