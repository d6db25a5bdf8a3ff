"""What counts, when it is applied, and how stale it was; without any message."""

import numpy as np
import pytest

from minipar.optim import SGD
from minipar.parallel.parameter_server import wire
from minipar.parallel.parameter_server.book import Book, Push
from minipar.parallel.parameter_server.keys import shards_of
from minipar.parallel.parameter_server.rules import ASYNC, SYNC, ssp
from minipar.parallel.parameter_server.store import Store
from minipar.parallel.parameter_server.wire import Head
from tests.parallel.parameter_server.serving import Small

X = 0


class Desktop:
    """A book for so many workers, over a Small model."""

    def __init__(self, rule, workers=2):
        model = Small()
        store = Store(shards_of(model, 1)[0], model, lambda named: SGD(named, lr=9.0))
        self.book = Book(range(workers), store, rule)

    def push(self, worker, gx, number, rows=1.0, version=0):
        gradients = {X: np.full((3, 4), float(gx))} if rows else {}
        self.book.lay_aside(worker, number, Push(rows, version, gradients))

    def step(self, worker, number, lr=1.0, factor=1.0):
        self.book.step(worker, Head(wire.STEP, number, number, lr=lr, factor=factor))
        self.book.close_round()

    @property
    def x(self):
        return self.book.store.tensors[X].data[0, 0]

    @property
    def records(self):
        return [tuple(record) for record in self.book.report.records]


def test_a_round_waits_for_the_lowest_clock_and_of_these_for_whom_has_not_pushed():
    desk = Desktop(SYNC, workers=3)
    desk.push(0, 1, 1)
    assert desk.book.slowest() == 1
    desk.step(0, 1)
    desk.push(1, 1, 1)
    assert desk.book.slowest() == 2
    desk.push(2, 1, 1)
    desk.step(2, 1)
    assert desk.book.slowest() == 1


def test_a_push_counts_only_when_its_worker_says_so():
    desk = Desktop(ASYNC)
    desk.push(0, 1, 1)
    assert desk.x == 0
    desk.step(0, 1)
    assert desk.x == -1


@pytest.mark.parametrize("rule", [ASYNC, ssp(1)])
def test_each_push_is_applied_at_once(rule):
    desk = Desktop(rule)
    for worker, gx in ((0, 1), (1, 2)):
        desk.push(worker, gx, 1)
        desk.step(worker, 1, lr=10.0, factor=0.5)
    assert desk.x == -15


def test_in_sync_a_round_is_applied_as_the_mean_over_all_rows():
    desk = Desktop(SYNC, 3)
    for worker, rows in enumerate((1.0, 2.0, 5.0)):
        desk.push(worker, worker + 1, 1, rows)
    for worker in range(3):
        assert desk.x == 0
        desk.step(worker, 1)
    assert desk.x == -(1 + 2 * 2 + 5 * 3) / 8
    assert desk.book.store.updates == 1


@pytest.mark.parametrize("rule", [ASYNC, ssp(3), SYNC])
def test_a_push_that_comes_again_is_applied_once(rule):
    desk = Desktop(rule, 1)
    for _ in range(2):
        desk.push(0, 1, 1)
        desk.step(0, 1)
    desk.step(0, 1)
    assert desk.x == -1
    assert desk.book.report.repeated == 2
    desk.push(0, 1, 2)
    desk.step(0, 2)
    assert desk.x == -2


def test_a_push_that_comes_again_is_no_part_of_the_next_round():
    desk = Desktop(SYNC)
    for worker in range(2):
        desk.push(worker, 1, 1)
        desk.step(worker, 1)
    desk.push(0, 1, 1)
    desk.push(1, 1, 2)
    assert not desk.book.complete(2, desk.book.pushes)
    assert list(desk.book.pushes) == [1]


def test_a_push_that_was_not_laid_aside_cannot_count():
    desk = Desktop(ASYNC)
    desk.step(0, 1)
    assert desk.book.clocks[0] == desk.book.numbers[0] == desk.book.store.updates == 0


def test_the_order_of_arrival_changes_no_bit_of_a_round():
    found = []
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        desk = Desktop(SYNC, 3)
        for worker in order:
            desk.push(worker, 0.1 * 3**worker, 1, rows=1 + worker)
            desk.step(worker, 1)
        found.append(desk.x)
    assert found[0] == found[1] == found[2]


def test_staleness_is_what_others_changed_since_the_pull():
    desk = Desktop(ASYNC)
    for worker, number, version in ((0, 1, 0), (0, 2, 1), (1, 1, 0), (0, 3, 2), (1, 2, 3)):
        desk.push(worker, 1, number, version=version)
        desk.step(worker, number)
    assert desk.records == [(0, 1, 0, 0), (0, 2, 1, 1), (1, 1, 0, 2), (0, 3, 2, 3), (1, 2, 3, 4)]
    assert desk.book.report.staleness() == {0: 2, 1: 2, 2: 1}


def test_a_round_needs_only_those_who_are_present():
    desk = Desktop(SYNC, 3)
    desk.push(0, 2, 1)
    desk.step(0, 1)
    desk.push(1, 100, 1)  # which does not count
    desk.push(2, 4, 1)
    desk.step(2, 1)
    assert desk.x == 0
    desk.book.forget(1)
    desk.book.close_round()
    assert desk.x == -3


def test_who_has_left_after_its_push_counted_is_part_of_the_round():
    desk = Desktop(SYNC)
    desk.push(0, 2, 1)
    desk.step(0, 1)
    desk.book.forget(0)
    assert desk.x == 0
    desk.push(1, 4, 1)
    desk.step(1, 1)
    assert desk.x == -3


def test_once_the_mean_is_known_it_stays():
    desk = Desktop(SYNC)
    desk.push(0, 2, 1)
    desk.push(1, 4, 1)
    assert desk.book.complete(1, desk.book.pushes)
    assert desk.book.mean()[X][0, 0] == 3
    desk.push(1, 100, 1)  # sent again
    desk.book.forget(1)
    desk.step(0, 1)
    assert desk.x == -3


def test_without_rows_a_push_has_no_part_in_the_mean():
    desk = Desktop(SYNC)
    desk.push(0, 100, 1, rows=0)
    desk.push(1, 4, 1)
    desk.step(0, 1)
    desk.step(1, 1)
    assert desk.x == -4
    assert desk.records == [(1, 1, 0, 0)]


def test_who_comes_back_begins_where_the_slowest_is():
    desk = Desktop(ASYNC, 3)
    desk.book.clocks.update({0: 5, 2: 9})
    desk.book.forget(1)
    desk.book.return_at(1, None)
    assert desk.book.clocks == {0: 5, 1: 5, 2: 9}
    desk.book.return_at(1, 7)
    assert desk.book.clocks[1] == 7
