"""Who gets in, while strangers stand at the door."""

import socket
import threading
import time

import pytest

from minipar.comm.hosts import doorkeeper
from minipar.comm.hosts.doorkeeper import MOST_GUESTS, Doorkeeper, may_be_trusted
from minipar.comm.hosts.secret import NotAdmitted, knock
from tests.comm.several import strangers

TOKEN = b"sixteen letters!"


@pytest.fixture
def door():
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    keeper = Doorkeeper(listener, TOKEN, b"test")
    keeper.address = listener.getsockname()
    yield keeper
    keeper.close()


def call(address, token=TOKEN, number=5):
    """Knock in a thread; its error, if any, is in the list once it has ended."""
    errors = []

    def knocking():
        with socket.create_connection(address, 10) as sock:
            try:
                knock(sock, token, b"test", number)
            except (NotAdmitted, OSError) as error:
                errors.append(error)

    thread = threading.Thread(target=knocking)
    thread.start()
    return thread, errors


def admit(door, how_many, within_s=20.0):
    admitted, deadline = [], time.monotonic() + within_s
    while len(admitted) < how_many and time.monotonic() < deadline:
        admitted += door.admit(0.05)
    for _, sock in admitted:
        sock.close()
    return [number for number, _ in admitted]


def test_those_who_know_the_token_come_in_with_their_numbers(door):
    threads = [call(door.address, number=n) for n in range(4)]
    assert sorted(admit(door, 4)) == [0, 1, 2, 3]
    for thread, errors in threads:
        thread.join()
        assert errors == []


def test_who_does_not_know_it_is_turned_away(door):
    thread, errors = call(door.address, token=b"another sixteen!")
    while thread.is_alive():
        assert door.admit(0.05) == []
    assert isinstance(errors[0], NotAdmitted) and door.turned_away == 1


def test_strangers_hold_up_nobody(door):
    """A hundred, more than may wait; all of them stay connected."""
    with strangers(door.address):
        thread, errors = call(door.address)
        begun = time.monotonic()
        assert admit(door, 1) == [5]
        assert time.monotonic() - begun < doorkeeper.PATIENCE_S
        assert len(door._guests) <= MOST_GUESTS
        thread.join()
    assert errors == []


def test_who_says_nothing_for_too_long_has_to_go(door, monkeypatch):
    monkeypatch.setattr(doorkeeper, "PATIENCE_S", 0.2)
    with socket.create_connection(door.address, 10) as sock:
        assert admit(door, 1, within_s=1.0) == [] and door.turned_away == 1
        sock.settimeout(10)
        while sock.recv(100):  # the challenge, then the end
            pass


def test_the_other_end_of_a_unix_socket_is_the_same_users():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert may_be_trusted(ours)


def test_that_of_another_user_is_not(monkeypatch):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setattr(doorkeeper.os, "getuid", lambda: 12345)
        assert not may_be_trusted(ours)
