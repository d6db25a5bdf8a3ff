"""Launchers that find each other, in threads; as commands of their own: test_hosts.py."""

import os
import socket
import threading

import pytest

from minipar.comm.hosts.meeting import Meeting
from minipar.comm.hosts.rendezvous import meet
from minipar.errors import CommError
from tests.comm.several import free_port


def meet_all(place, ranks, timeout_s=20.0, tokens=None):
    """What each node gets: its Nodes, or the error."""
    p = len(ranks)
    got = [None] * p

    def one(node):
        token = b"a token" if tokens is None else tokens[node]
        try:
            got[node] = meet(Meeting(place, node, p, ranks[node], token, timeout_s, ranks[node]))
        except CommError as error:
            got[node] = error

    threads = [threading.Thread(target=one, args=(node,)) for node in range(p)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def close(nodes):
    for node in nodes:
        node.forget_listeners()
    closing = [threading.Thread(target=node.close) for node in nodes]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join()


def test_all_know_the_same_afterwards():
    nodes = meet_all(("127.0.0.1", free_port()), (1, 3, 2))
    assert [list(n.mine) for n in nodes] == [[0], [1, 2, 3], [4, 5]]
    known = [n.neighbours(n.mine[-1]) for n in nodes]
    assert len({k.addresses for k in known}) == 1 and len(known[0].addresses) == 6
    assert len({k.secret for k in known}) == 1 and b"a token" not in known[0].secret
    assert [k.shared for k in known] == [range(1), range(1, 4), range(4, 6)]
    for node in nodes:
        for rank in node.mine:
            one = node.neighbours(rank)
            with socket.socket(fileno=os.dup(one.listener)) as sock:
                assert sock.getsockname() == one.addresses[rank]
                assert sock.getsockname()[0] == "127.0.0.1"
    close(nodes)


def test_each_job_has_a_secret_of_its_own():
    secrets = set()
    for _ in range(2):
        nodes = meet_all(("127.0.0.1", free_port()), (1, 1))
        secrets.add(nodes[0].neighbours(0).secret)
        close(nodes)
    assert len(secrets) == 2


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="abstract sockets are Linux's")
def test_at_a_unix_socket_all_get_one_memory_and_nobody_listens():
    nodes = meet_all(f"minipar-test-rendezvous-{os.getpid()}", (1, 1, 1))
    assert len({tuple(os.fstat(d).st_ino for d in n.memory) for n in nodes}) == 1
    for node in nodes:
        known = node.neighbours(node.mine[0])
        assert (known.shared, known.listener) == (range(3), -1)
        for descriptor in node.memory:
            os.close(descriptor)
    close(nodes)


def test_a_host_without_the_token_is_told_so():
    first, second = meet_all(("127.0.0.1", free_port()), (1, 1), 1.0, [b"one", b"another"])
    assert "1 of 2 nodes have come: 0; waited 1 s for node 1" in str(first)
    assert "node 1 was not let in" in str(second)
