"""The clock of the cost model, on programs whose longest chain can be seen."""

import numpy as np

from minipar import run
from minipar.testing.clock import ClockLink

N = 10  # float64: 80 bytes


def clocks(work, p):
    """The clock of each rank: messages, bytes sent, bytes added."""

    def with_clock(group):
        link = ClockLink(group)
        work(link, np.ones(N))
        return link.time.tolist()

    return run(with_clock, p)


def test_a_rank_sends_one_message_at_a_time_and_its_receivers_wait():
    def work(link, x):
        if link.rank == 0:
            link.send(x, 1)
            link.send(x, 2)
        else:
            link.add(x, link.recv(0))

    assert clocks(work, 3) == [[2, 160, 0], [1, 80, 80], [2, 160, 80]]


def test_a_rank_receives_one_message_at_a_time():
    def work(link, x):
        if link.rank:
            link.send(x, 0)
            return
        for other in (1, 2, 3):
            link.recv(other)

    assert clocks(work, 4) == [[3, 240, 0], *[[1, 80, 0]] * 3]


def test_sending_and_receiving_overlap():
    def work(link, x):
        link.sendrecv(x, 1 - link.rank, 1 - link.rank)

    assert clocks(work, 2) == [[1, 80, 0]] * 2


def test_adding_is_what_the_caller_says():
    def work(group):
        link, x = ClockLink(group, np.maximum), np.array([1, 5])
        link.add(x, np.array([3, 3]))
        return x.tolist(), link.time.tolist()

    assert run(work, 1) == [([3, 5], [0, 0, 16])]
