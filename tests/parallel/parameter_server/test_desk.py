"""Who may be answered when, and what a refusal is; the world only notes what is sent."""

from types import SimpleNamespace

import numpy as np
import pytest

from minipar.errors import UsageError
from minipar.optim import SGD
from minipar.parallel.parameter_server import wire
from minipar.parallel.parameter_server.book import Book
from minipar.parallel.parameter_server.desk import Desk, Question, check_rows
from minipar.parallel.parameter_server.keys import shards_of
from minipar.parallel.parameter_server.rules import ASYNC, SYNC, ssp
from minipar.parallel.parameter_server.store import Store
from minipar.parallel.parameter_server.wire import Head
from tests.parallel.parameter_server.serving import Small


class Counter:
    """A desk of two workers, and what it has sent to whom."""

    def __init__(self, rule):
        model, self.sent = Small(), []
        store = Store(shards_of(model, 1)[0], model, lambda named: SGD(named, lr=1.0))
        note = lambda array, worker: self.sent.append((worker, array)) or done  # noqa: E731
        done = SimpleNamespace(done=lambda: True)
        self.desk = Desk(SimpleNamespace(rank=2, isend=note), Book(range(2), store, rule))

    def ask(self, worker, kind, clock=0, tail=(), arrays=(), expected=0):
        head = Head(kind, clock, expected=expected)
        self.desk.questions.append(Question(worker, head, list(tail), list(arrays)))
        return self.answers()

    def answers(self):
        """(worker, head, tail) of each answer that is due now."""
        self.sent.clear()
        self.desk.answer()
        heads = [(w, a) for w, a in self.sent if a.dtype == np.int64 and len(a) >= wire.HEAD]
        return [(worker, *wire.unpack_head(array)) for worker, array in heads]


@pytest.mark.parametrize(("rule", "ahead"), [(SYNC, 0), (ssp(2), 2)])
def test_a_pull_waits_until_the_slowest_is_near_enough(rule, ahead):
    counter = Counter(rule)
    assert counter.ask(0, wire.ROWS, clock=ahead, tail=[0])
    assert not counter.ask(0, wire.ROWS, clock=ahead + 1, tail=[0])
    counter.desk.book.clocks[1] = 1
    assert not counter.answers()  # worker 0 itself is the slowest now
    counter.desk.book.clocks[0] = 1
    assert [worker for worker, _, _ in counter.answers()] == [0]


def test_async_waits_for_nobody():
    assert Counter(ASYNC).ask(0, wire.ROWS, clock=1000, tail=[0])


def test_a_worker_is_answered_in_the_order_in_which_it_asked_and_holds_up_nobody_else():
    counter = Counter(SYNC)
    assert not counter.ask(0, wire.ROWS, clock=1, tail=[0])
    assert not counter.ask(0, wire.HELLO)  # might be answered, but something stands before it
    assert [worker for worker, _, _ in counter.ask(1, wire.HELLO)] == [1]
    counter.desk.book.clocks |= {0: 1, 1: 1}
    assert [(w, len(tail) > 0) for w, _, tail in counter.answers()] == [(0, True), (0, False)]


def test_a_refusal_is_the_next_answer_with_an_array_for_each_that_is_expected():
    counter = Counter(SYNC)
    counter.desk.refuse(1, "PUSH", UsageError("no such key"))
    [(worker, head, tail)] = counter.ask(1, wire.ROWS, clock=9, tail=[0], expected=3)
    assert (worker, head.kind, head.messages) == (1, wire.REFUSED, 3)
    assert wire.ERRORS[head.code] is UsageError
    assert wire.tail_text(tail) == "server 2, PUSH of worker 1 refused: no such key"
    assert [a.size for _, a in counter.sent[1:]] == [0, 0, 0]
    assert not counter.desk.refusals  # once


def test_who_is_forgotten_gets_no_answer():
    counter = Counter(SYNC)
    counter.ask(0, wire.ROWS, clock=1, tail=[0])
    counter.desk.forget(0)
    counter.desk.book.clocks |= {0: 1, 1: 1}
    assert not counter.answers()


@pytest.mark.parametrize(
    ("tail", "ids", "says"),
    [
        ([2, 0], [[0, 1]], "rows of 2 tables"),
        ([2], [], "rows of 1 tables"),
        ([2], [[0, 1, 2]], "3 ids of"),
        ([2], [[0, 12]], "12"),
    ],
)
def test_rows_that_are_not_there_are_refused(tail, ids, says):
    arrays = [np.array(each) for each in ids]
    question = Question(0, Head(wire.ROWS), tail, arrays)
    with pytest.raises(UsageError, match=says):
        check_rows(question, Counter(ASYNC).desk.book)
    check_rows(Question(0, Head(wire.ROWS), [2], [np.array([0, 11])]), Counter(ASYNC).desk.book)
