"""The shape of the tree; results and costs are in test_algorithms."""

import numpy as np
import pytest

from minipar import run
from minipar.comm.tree import tree_scatter
from minipar.comm.wiring import even_cuts
from minipar.events import recording


def messages(call, p):
    """(sender, receiver, bytes) of all messages."""

    def work(group):
        with recording() as log:
            call(group)
        return [(event.rank, event.peer, event.nbytes) for event in log]

    return [message for log in run(work, p) for message in log]


@pytest.mark.parametrize("p", range(1, 10))
@pytest.mark.parametrize("root", [0, 1])
def test_everybody_hears_once_from_the_rank_that_differs_in_its_highest_bit(p, root):
    root %= p
    sent = messages(lambda g: g.broadcast(np.zeros(1), root, "tree"), p)
    parents = {(place - (1 << place.bit_length() - 1), place) for place in range(1, p)}
    assert {((src - root) % p, (dst - root) % p) for src, dst, _ in sent} == parents
    assert len(sent) == p - 1


@pytest.mark.parametrize("p", range(1, 10))
def test_reduce_and_gather_go_up_to_the_rank_without_the_lowest_bit(p):
    for call in ("reduce", "gather"):
        sent = messages(lambda g, call=call: getattr(g, call)(np.zeros(1), algorithm="tree"), p)
        assert {(src, dst) for src, dst, _ in sent} == {(r, r & (r - 1)) for r in range(1, p)}
        assert len(sent) == p - 1


def test_a_gather_carries_the_pieces_of_a_whole_subtree():
    sent = messages(lambda g: g.gather(np.zeros(1), algorithm="tree"), 7)
    assert sorted(sent) == [(1, 0, 8), (2, 0, 16), (3, 2, 8), (4, 0, 24), (5, 4, 8), (6, 4, 8)]


@pytest.mark.parametrize("p", range(1, 10))
@pytest.mark.parametrize("n", [0, 1, 5, 23])
def test_pieces_of_different_lengths(p, n):
    x, cuts = np.arange(n), even_cuts(n, p)

    class Link:
        def __init__(self, group):
            self.rank, self.size = group.rank, group.size
            self.send, self.recv = group.send, group.recv

    got = run(lambda g: tree_scatter(Link(g), x if g.rank == 0 else None, cuts), p)
    assert [piece.tolist() for piece in got] == [c.tolist() for c in np.array_split(x, p)]
