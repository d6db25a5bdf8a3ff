"""How the launcher talks to all its ranks; with real processes: test_process.py, test_losses.py."""

import os
import socket
from types import SimpleNamespace

import pytest

from minipar.comm import crew
from minipar.comm.child import Child
from minipar.comm.control import decode, send_message


class Rank(Child):
    """A child without a process: the rank's ends of its socket and of a stream are here."""

    def __init__(self, number, *_):
        self.number, self.started, self.exited, self.hung_up = number, False, False, False
        self.control, self.theirs = socket.socketpair()
        self.control.setblocking(False)
        self._unsent, self._unread = bytearray(), bytearray()
        reading, self.prints = os.pipe()
        self.streams = {"stdout": os.fdopen(reading, "rb")}

    def printed(self, name):
        return os.read(self.streams[name].fileno(), 100).decode() or None

    def told(self):
        """All messages to this rank so far."""
        self.theirs.setblocking(False)
        try:
            return decode(bytearray(self.theirs.recv(1 << 16)))
        except BlockingIOError:
            return []


class Lines:
    """An output that only notes."""

    def __init__(self):
        self.fed = []

    def flush(self):
        return 0.0

    def feed(self, rank, text):
        self.fed.append((rank, text))


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr(crew, "Child", Rank)
    site = SimpleNamespace(sockets=[], ranks=3, on_host=3, memory=(), neighbours=lambda rank: None)
    three = crew.Crew(site, {"stdout": Lines(), "stderr": Lines()}, ("function",), 5.0)
    ranks = [three.start(number) for number in range(3)]
    yield three
    three._selector.close()
    for rank in ranks:
        rank.close()
        rank.theirs.close()
        os.close(rank.prints)


def test_only_who_has_begun_and_has_not_exited_is_told(three):
    zero, one, two = three.children
    three.begin(zero, "standing")
    three.begin(two)
    two.exited = True
    three.broadcast("finished", 1)
    start = ("start", 0, 3, 5.0, ("function",), None, "standing")
    assert zero.told() == [start, ("finished", 1)]
    assert one.told() == [] and len(two.told()) == 1


def test_what_ranks_say_is_heard_and_what_they_print_passed_on(three):
    zero, one, _ = three.children
    send_message(zero.theirs, "result", b"1")
    send_message(zero.theirs, "left", "why")
    os.write(one.prints, b"hello")
    assert list(three.hear()) == [(zero, ("result", b"1")), (zero, ("left", "why"))]
    assert three._outputs["stdout"].fed == [(1, "hello")]
    three.say(2, "rank 2 is gone")
    assert three._outputs["stderr"].fed == [(2, "is gone\n")]  # the output has the label


def test_a_rank_that_has_hung_up_is_heard_to_the_end_and_then_no_more(three):
    zero = three.children[0]
    send_message(zero.theirs, "result", b"1")
    zero.theirs.close()
    assert list(three.listen(zero)) == [(zero, ("result", b"1"))]
    assert zero.hung_up and list(three.listen(zero)) == [] and list(three.hear()) == []


def test_a_rank_that_cannot_be_replaced_stays_and_it_is_known_why(three, monkeypatch):
    def refuse(*_):
        raise OSError(11, "Resource temporarily unavailable")

    one = three.children[1]
    monkeypatch.setattr(crew, "Child", refuse)
    said = "it cannot be started again: Resource temporarily unavailable"
    assert three.replace(one) == said and three.children[1] is one
