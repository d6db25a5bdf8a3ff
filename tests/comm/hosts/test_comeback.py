"""A rank that begins again: it is called by those who are there; with processes: losing_hosts."""

import socket
import threading

import pytest

from minipar.comm.hosts.comeback import call, let_in
from minipar.comm.hosts.neighbours import Neighbours

SECRET = b"secret"


@pytest.fixture
def door():
    sock = socket.create_server(("127.0.0.1", 0))
    yield sock
    sock.close()


def known(door, secret=SECRET):
    return Neighbours(range(1), door.fileno(), (door.getsockname(),) * 4, secret)


def test_those_who_call_are_taken_up_under_their_incarnation(door):
    mine, theirs = [], []
    neighbours, address = known(door), door.getsockname()
    waiting = threading.Thread(
        target=let_in, args=(0, 2, neighbours, [1, 3], lambda *a: mine.append(a))
    )
    waiting.start()
    for me in ((1, 0), (3, 5)):
        call(me, (0, 2), address, neighbours, lambda *a: theirs.append(a))
    waiting.join(10)
    door.detach()
    assert sorted(taken[:2] for taken in mine) == [(1, 0), (3, 5)]
    assert [taken[:2] for taken in theirs] == [(0, 2), (0, 2)]
    byte = memoryview(bytearray(1))
    for (rank, _, stream), (_, _, other) in zip(sorted(mine, key=lambda t: t[0]), theirs):
        stream.write_some(memoryview(bytes([rank])))
        while not other.read_some(byte):
            pass
        assert byte[0] == rank
        stream.clear()
        assert stream.ended and stream.write_some(byte) == 0
        other.clear()


def test_who_is_gone_again_is_not_called_for_long(door):
    address = door.getsockname()
    door.close()
    call((1, 0), (0, 2), address, Neighbours(range(1), -1, (), SECRET), pytest.fail)


def test_another_incarnation_is_not_let_in(door, monkeypatch):
    monkeypatch.setattr("minipar.comm.hosts.comeback.LONGEST_S", 0.5)
    neighbours = known(door)
    waiting = threading.Thread(target=let_in, args=(0, 2, neighbours, [1], pytest.fail))
    waiting.start()
    call((1, 0), (0, 1), door.getsockname(), neighbours, pytest.fail)
    waiting.join(10)
    door.detach()
