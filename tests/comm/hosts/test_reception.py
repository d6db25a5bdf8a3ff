"""Node 0 while the others come: who is refused, who is forgotten, who is missing."""

import socket
import threading
import time

import pytest

from minipar import __version__
from minipar.comm.hosts.link import NodeLink
from minipar.comm.hosts.meeting import PURPOSE, Meeting
from minipar.comm.hosts.reception import Reception
from minipar.comm.hosts.secret import knock
from minipar.errors import CommError


class Host:
    """A reception for three nodes, in a thread."""

    def __init__(self, timeout_s):
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        meeting = Meeting(self.address, 0, 3, 1, b"token", timeout_s, 1)
        self._reception = Reception(meeting, listener, ())
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self.result = self._reception.wait()
        except CommError as error:
            self.result = str(error)

    def call(self, node):
        sock = socket.create_connection(self.address, 10)
        knock(sock, b"token", PURPOSE, node)
        return NodeLink(sock, 0, "host 0")

    def end(self):
        self._thread.join()
        return self.result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("node", "hello", "says"),
    [
        (1, ("0.0", 3, [1]), "it runs minipar 0.0"),
        (1, (__version__, 2, [1]), "--nnodes 2, and node 0 with 3"),
        (3, (__version__, 3, [1]), "there is no node 3"),
        (0, (__version__, 3, [1]), "there is no node 0"),
        (1, (__version__, 3, []), "it has no ranks"),
    ],
)
def test_who_does_not_fit_hears_why(node, hello, says):
    host = Host(1.0)
    link = host.call(node)
    link.say("hello", *hello)
    _, reason = link.wait_for(("refused",), time.monotonic() + 10)
    link.close(0.0)
    assert says in reason
    assert "1 of 3 nodes have come: 0; waited 1 s for node 1, 2" in host.end()


def test_who_has_come_and_gone_may_come_again():
    host = Host(20.0)
    first = host.call(1)
    first.say("hello", __version__, 3, [7])
    first.close(0.0)
    links = []
    for node in (2, 1):
        while True:  # until node 0 has seen that the first is gone
            links.append(host.call(node))
            links[-1].say("hello", __version__, 3, [node])
            time.sleep(0.3)
            if not links[-1].hear():
                break
    came = host.end()
    for link in (*links, *(link for link, _ in came)):
        link.close(0.0)
    assert [(link.node, ports) for link, ports in came] == [(1, [1]), (2, [2])]
