"""The connection between two launchers: what is said is heard, and silence is noticed."""

import socket
import time

import pytest

from minipar.comm.hosts import link as node_link
from minipar.comm.hosts.link import NodeLink
from minipar.errors import CommError


@pytest.fixture
def links():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield NodeLink(ours, 1, "there"), NodeLink(theirs, 0, "here")


def heard(link):
    messages = []
    while not messages and link.lost is None:
        messages = link.hear()
    return messages


def test_what_is_said_is_heard_and_beats_are_not(links):
    a, b = links
    a.say("beat")
    a.say("finished", 3)
    assert heard(b) == [("finished", 3)] and b.lost is None


def test_more_than_the_socket_takes_is_sent_later(links):
    a, b = links
    for _ in range(2000):
        a.say("failed", 1, "x" * 1000, 1)
    got = 0
    while got < 2000:
        a.push()
        got += len(b.hear())


def test_beats_keep_a_silent_link_alive(links, monkeypatch):
    a, b = links
    monkeypatch.setattr(node_link, "BEAT_S", 0.01)
    monkeypatch.setattr(node_link, "SILENT_S", 0.5)
    until = time.monotonic() + 0.7
    while time.monotonic() < until:
        assert a.hear() == b.hear() == []
        time.sleep(0.005)
    assert a.lost is None and b.lost is None


def test_a_side_that_says_nothing_is_lost(links, monkeypatch):
    monkeypatch.setattr(node_link, "SILENT_S", 0.1)
    assert heard(links[0]) == []
    assert links[0].lost == "nothing was heard of it for 0 s"


def test_an_end_is_noticed_after_the_last_words(links):
    a, b = links
    a.say("finished", 1)
    a.close(0.0)
    assert heard(b) == [("finished", 1)]
    assert heard(b) == [] and b.lost == "its launcher has ended without a word"


def test_garbage_is_the_end_of_the_link(links):
    a, b = links
    a.socket.send(b"GET / HTTP/1.1\r\n")
    assert heard(b) == [] and b.lost.startswith("it announced a message of")


def test_waiting_for_one_message_keeps_the_next(links):
    a, b = links
    a.say("welcome", [1], [["h", 1]], "n")
    a.say("finished", 0)
    soon = time.monotonic() + 10
    assert b.wait_for(("welcome",), soon)[0] == "welcome"
    assert heard(b) == [("finished", 0)]
    a.say("done")
    with pytest.raises(CommError, match="'done' where 'welcome' was due"):
        b.wait_for(("welcome",), soon)
    with pytest.raises(TimeoutError):
        b.wait_for(("welcome",), time.monotonic())


def test_what_came_before_the_link_was_cut_is_still_heard(links):
    a, b = links
    b.say("finished", 3)
    b.socket.close()
    a.say("finished", 0)  # which nobody takes any more
    assert a.hear() == [("finished", 3)]
    assert a.lost == node_link.ENDED
