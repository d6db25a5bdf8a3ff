"""Where launchers meet."""

import os
import socket

import pytest

from minipar.comm.hosts.meeting import Meeting, connected, listen, where
from minipar.errors import CommError, UsageError

AT = Meeting(("127.0.0.1", 1), 0, 2, 1, b"", 1.0, 1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.b:29500", ("a.b", 29500)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_host_and_port(text, found):
    assert where(text) == found
    assert str(AT._replace(where=found)) == text


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":1", "a:x", "a:0", "a:65536", "a:-1", "0.0.0.0:1"]
)
def test_what_is_no_rendezvous_is_refused(text):
    with pytest.raises(UsageError, match=r"no rendezvous|names no host"):
        where(text)


def test_a_host_that_nobody_knows_is_a_sentence():
    with pytest.raises(UsageError, match=r"--rendezvous no.such.host.invalid:1: "):
        connected(AT._replace(where=("no.such.host.invalid", 1)), 1.0)


def test_an_address_of_another_host_is_a_sentence():
    with pytest.raises(CommError, match=r"cannot listen at 192.0.2.1:1: .*an address of the host"):
        listen(AT._replace(where=("192.0.2.1", 1)))


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="abstract sockets are Linux's")
def test_a_unix_socket_has_no_file():
    meeting = AT._replace(where=f"minipar-test-{os.getpid()}")
    with listen(meeting) as listener, connected(meeting, 5.0) as sock:
        assert sock.family == listener.family == socket.AF_UNIX
        with pytest.raises(CommError, match="Unix socket of this job: Address already in use"):
            listen(meeting)
