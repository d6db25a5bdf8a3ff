"""Three launchers in one process: who hears what, and how they agree on the end."""

import socket

import pytest

from minipar.comm.failure import Failure
from minipar.comm.hosts.link import NodeLink
from minipar.comm.hosts.neighbours import Neighbours
from minipar.comm.hosts.nodes import Nodes

COUNTS = (2, 1, 2)  # ranks 0 and 1; 2; 3 and 4


@pytest.fixture
def nodes():
    pairs = [socket.socketpair() for _ in range(2)]
    hub = [NodeLink(ours, i + 1, f"host {i + 1}") for i, (ours, _) in enumerate(pairs)]
    links = [hub, *([NodeLink(theirs, 0, "host 0")] for _, theirs in pairs)]
    known = Neighbours(range(0), -1, (), b"")
    yield [Nodes(i, COUNTS, links[i], known, 1) for i in range(3)]
    for pair in pairs:
        for sock in pair:
            sock.close()


def hear(node, others=()):
    """The next that it hears; the others listen meanwhile, and pass on what they have to."""
    while not (heard := node.hear()):
        for other in others:
            assert other.hear() == [] or other.node == 0
    return heard


def settle(nodes):
    while not all(node.settled for node in nodes):
        for node in nodes:
            node.hear()


def test_the_parts_are_contiguous(nodes):
    assert [list(node.mine) for node in nodes] == [[0, 1], [2], [3, 4]]
    assert {node.ranks for node in nodes} == {5}


def test_node_0_passes_on_what_concerns_all(nodes):
    nodes[1].say("finished", 2)
    assert hear(nodes[2], [nodes[0]]) == [("finished", 2)]
    nodes[2].note_notice(3, b"\x00what it does")
    assert hear(nodes[1], [nodes[0]]) == [("notice", 3, b"\x00what it does")]
    nodes[0].say("finished", 0)
    assert hear(nodes[1]) == hear(nodes[2]) == [("finished", 0)]


def test_the_first_failure_that_node_0_hears_of_is_everybodys(nodes):
    nodes[1].note_failure(Failure(2, "the first", exit_code=7))
    hear(nodes[0])
    nodes[2].note_failure(Failure(4, "the second"))
    nodes[0].note_failure(Failure(0, "the third"))
    for node in nodes[1:]:
        ((kind, failure),) = hear(node)
        assert (kind, failure.summary, failure.exit_code) == ("failed", "the first", 7)
    assert hear(nodes[0])[0][1].summary == "the first"  # when the second comes
    settle(nodes)


def test_all_are_done_when_all_have_said_so(nodes):
    nodes[1].note_done()
    nodes[0].note_done()
    for _ in range(50):
        assert not any(node.hear() for node in nodes)
    assert not any(node.settled for node in nodes)
    nodes[2].note_done()
    settle(nodes)


def test_an_interrupt_reaches_all_and_comes_back_to_nobody(nodes):
    nodes[2].interrupt()
    assert hear(nodes[0]) == hear(nodes[1]) == [("interrupt", 2)]
    nodes[0].interrupt()
    nodes[1].interrupt()
    assert [node.hear() for node in nodes] == [[], [], []]


def test_a_lost_node_is_a_failure_that_names_its_ranks(nodes):
    nodes[2].close()
    ((_, failure),) = hear(nodes[0])
    said = "node 2 at host 2 (ranks 3 to 4) is lost: its launcher has ended without a word"
    assert (failure.rank, failure.summary) == (3, said)
    assert hear(nodes[1])[0][1].summary == said


@pytest.mark.parametrize("message", [("finished", 0), ("notice", 3, "!!"), ("failed", 99, "x", 1)])
def test_who_speaks_of_ranks_that_it_does_not_have_is_lost(nodes, message):
    nodes[2].say(*message)
    ((_, failure),) = hear(nodes[0])
    assert failure.summary.startswith(
        "node 2 at host 2 (ranks 3 to 4) is lost: it sent what cannot"
    )


def test_all_hear_of_losses_and_returns_in_one_order(nodes):
    nodes[1].tell("reported", 2, "rank 2 is gone", True)
    nodes[0].tell("reported", 0, "rank 0 is gone", False)
    nodes[2].tell("joined", 4, 5000)
    heard = [[], [], []]
    while not all(len(mine) == 3 for mine in heard):
        for mine, node in zip(heard, nodes):
            mine += node.hear()
    assert heard[0] == heard[1] == heard[2]
    assert ("reported", 2, "rank 2 is gone", True) in heard[0]


def test_where_losses_are_reported_a_lost_node_is_that_of_its_ranks(nodes):
    nodes[0].reports = True
    nodes[2].close()
    said = "node 2 at host 2: its launcher has ended without a word"
    assert hear(nodes[0]) == [("gone", range(3, 5), said)]
    nodes[0].note_done()
    nodes[1].note_done()
    settle(nodes[:2])
