"""Large messages that the receiver copies from where they lie, with the sender's help."""

import numpy as np
import pytest

import minipar
from minipar.comm import loans
from minipar.comm.frame import Call, header_for
from minipar.comm.loans import BACK, DONE, FRONT, OFFER, Loans
from tests.comm import ranks, reached
from tests.comm.onehost import Host

CALL = Call(0, 0, "send", "", "here:1")


def run(*arguments):
    return minipar.run(*arguments[:1], 2, args=arguments[1:], backend="process", timeout_s=60)


@pytest.mark.parametrize("locked", [None, 0, 1])
def test_what_is_sent_may_be_changed_at_once(locked):
    helped = run(reached.many_sends, locked)
    if locked is None and not any(helped):
        pytest.skip("the ranks may not reach each other here")
    assert (helped[1] > 0) == (locked is None)  # rank 1 sends to one that is slow


def test_a_sender_that_returns_waits_until_its_array_is_fetched():
    assert run(reached.sent_at_the_end) == [True, True]


@pytest.mark.parametrize("p", [2, 3])
def test_large_shared_arrays_are_sent_by_saying_where_they_are(p):
    assert minipar.run(ranks.lent_arrays, p, backend="process", timeout_s=60) == [True] * p


def test_who_is_told_when_an_array_has_been_fetched():
    host = Host(2)
    zero, one = (Loans(exchange) for exchange in host.exchanges)
    x = host.exchanges[0].heap.empty((4,), np.dtype("int64"))
    x[:] = 5
    assert zero.lend(np.zeros(4), 1, CALL) is None  # private memory, and small
    loan = zero.lend(x[1:], 1, CALL)
    into = np.zeros(3, np.int64)
    assert not loan.over() and not loan.private
    one.fetch(0, header_for(CALL, into)._replace(place=loan.where), into)
    assert loan.over() and (into == 5).all()
    assert host.exchanges[1].board.fetches(1) == 1  # or the watch would see a deadlock
    assert not zero.lend(x, 1, CALL).over()


@pytest.fixture
def pair(monkeypatch):
    """The loans of two ranks, and an array in ten pieces that rank 0 has lent to rank 1."""
    monkeypatch.setattr(loans, "PIECE_BYTES", 80)
    host = Host(2)
    zero, one = (Loans(exchange) for exchange in host.exchanges)
    array = host.exchanges[0].heap.empty((97,), np.dtype("int64"))
    array[:] = np.arange(97)
    loan = zero.lend(array, 1, CALL)
    yield host, zero, one, array, loan


def test_the_sender_may_help_between_any_two_pieces(pair, monkeypatch):
    """The receiver copies from the front, the sender from the back, until they meet."""
    host, _, one, array, loan = pair
    steps = []

    def between(call):
        steps.append(loan.help())

    host.exchanges[1].check = between
    into = np.zeros(97, np.int64)
    one.fetch(0, header_for(CALL, array)._replace(place=loan.where), into)
    assert (into == array).all() and steps == [False] * 5  # five pieces each
    assert loan.over() and loan.help()


def test_a_sender_that_comes_late_copies_nothing(pair):
    _, zero, one, array, loan = pair
    into = np.zeros(97, np.int64)
    one.fetch(0, header_for(CALL, array)._replace(place=loan.where), into)
    into[:] = 5  # the receiver's again
    assert zero.open and loan.help() and not zero.open
    assert (into == 5).all()


def test_the_receiver_waits_for_a_piece_that_is_being_copied(pair):
    """The offer is withdrawn while the sender is at a piece: taken, but not done yet."""
    host, _, one, array, loan = pair
    cells = host.exchanges[0].cells
    ours, theirs = one.cell(0, 1), one.cell(1, 0)
    into, waits = np.zeros(97, np.int64), []

    def take_all(call):
        cells[ours + BACK] = 1 << 32 | 9  # all but the first one

    def wait(ready, whom, call):
        waits.append((ready(), whom, cells[theirs + OFFER], cells[theirs + FRONT]))
        cells[ours + BACK] = 1 << 32 | 8  # the sender gives one of them up again
        cells[ours + DONE] = 1 << 32 | 8
        into[20:] = array[20:]
        assert ready()

    host.exchanges[1].check, host.exchanges[1].wait = take_all, wait
    one.fetch(0, header_for(CALL, array)._replace(place=loan.where), into)
    assert waits == [(False, 0, 0, 1)]
    assert (into == array).all()


def test_a_sender_sees_that_the_offer_was_withdrawn(pair):
    host, zero, one, array, loan = pair
    cells = host.exchanges[0].cells
    cells[one.cell(1, 0) + OFFER], cells[one.cell(1, 0) + loans.INTO] = 1, 1

    def withdraw():
        cells[one.cell(1, 0) + OFFER] = 0

    zero.fence = withdraw
    assert not loan.help()
    assert cells[one.cell(0, 1) + BACK] == 1 << 32 and cells[one.cell(0, 1) + DONE] == 0
    assert (array == np.arange(97)).all()
