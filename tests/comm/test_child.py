"""How the launcher holds a rank's process; that all of it works together: test_process.py."""

import os
import socket
from types import SimpleNamespace

import pytest

from minipar.comm.child import Child
from minipar.comm.control import encode


@pytest.fixture
def child():
    """A child without a process: both ends of its socket and of its stdout are here."""
    child = Child.__new__(Child)
    child.control, child.theirs = socket.socketpair()
    child.control.setblocking(False)
    child.hung_up, child._unsent, child._unread = False, bytearray(), bytearray()
    yield child
    child.control.close()
    child.theirs.close()


def test_a_stopped_rank_does_not_block_the_launcher(child):
    big = "x" * 10_000_000
    child.say("lost", 1, big)  # nobody reads: returns all the same
    assert child.push()
    got = bytearray()
    while child.push() or len(got) < 10_000_000:
        got += child.theirs.recv(1 << 20)
    assert bytes(got) == encode("lost", 1, big)


def test_messages_come_in_any_pieces(child):
    raw = encode("result", b"1") + encode("error", "why")
    heard = []
    for i in range(0, len(raw), 7):
        child.theirs.sendall(raw[i : i + 7])
        heard += child.hear()
    assert heard == [("result", b"1"), ("error", "why")] and not child.hung_up
    child.theirs.close()
    assert child.hear() == [] and child.hung_up
    child.say("too late")
    assert not child.push()


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (0, "ended with exit code 0 and without a word"),
        (-9, "was killed by signal 9 (SIGKILL)"),
        (-63, "was killed by signal 63"),
    ],
)
def test_exit_statuses_in_words(child, status, says):
    child.process = SimpleNamespace(returncode=status)
    assert child.how_it_ended() == says


def test_letters_that_are_cut_between_two_reads(child):
    import codecs

    out, into = os.pipe()
    child._decoders = {"stdout": codecs.getincrementaldecoder("utf-8")("replace")}
    with os.fdopen(out, "rb") as stream:
        child.streams = {"stdout": stream}
        os.write(into, "é".encode()[:1])
        assert child.printed("stdout") == ""
        os.write(into, "é".encode()[1:])
        assert child.printed("stdout") == "é"
        os.close(into)
        assert child.printed("stdout") is None
