"""Links in other orders, and cuts like those of array_split."""

import numpy as np
import pytest

from minipar.comm.wiring import Renumbered, even_cuts, pieces, seen_from


class Recorder:
    """A link that writes down whom it was asked for."""

    def __init__(self, rank, size):
        self.rank, self.size, self.asked = rank, size, []

    def send(self, array, dst):
        self.asked.append(("send", dst))

    def recv(self, src):
        self.asked.append(("recv", src))
        return np.zeros(1)

    def sendrecv(self, array, dst, src):
        self.asked.append(("sendrecv", dst, src))
        return np.zeros(1)

    def add(self, into, array):
        self.asked.append("add")


def use(link):
    link.send(None, 0)
    link.recv(1)
    link.sendrecv(None, 2, 1)
    link.add(None, None)


def test_renumbered():
    link = Recorder(5, 8)
    few = Renumbered(link, [7, 5, 2])
    assert (few.rank, few.size) == (1, 3)
    use(few)
    assert link.asked == [("send", 7), ("recv", 5), ("sendrecv", 2, 5), "add"]


def test_seen_from_a_root():
    link = Recorder(1, 4)
    assert seen_from(link, 0) is link
    circle = seen_from(link, 3)
    assert (circle.rank, circle.size) == (2, 4)
    use(circle)
    assert link.asked[:3] == [("send", 3), ("recv", 0), ("sendrecv", 1, 0)]


@pytest.mark.parametrize("p", range(1, 10))
@pytest.mark.parametrize("n", [0, 1, 5, 9, 64])
def test_pieces_are_those_of_array_split_and_views(n, p):
    x = np.arange(n)
    found = pieces(x, even_cuts(n, p))
    assert [piece.tolist() for piece in found] == [piece.tolist() for piece in np.array_split(x, p)]
    assert all(piece.base is x for piece in found)
