"""What comes to a server by message and makes no sense is refused, and changes nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

import minipar
from minipar.errors import CommError, CommTimeout, Diverged, ShapeMismatch, UsageError
from minipar.parallel.parameter_server import ASYNC, Roles, serve, wire
from minipar.parallel.parameter_server.keys import shards_of
from minipar.parallel.parameter_server.lines import checked, take
from minipar.parallel.parameter_server.server import Server
from minipar.parallel.parameter_server.wire import Head
from minipar.parallel.parameter_server.worker import Worker
from tests.parallel.parameter_server.serving import Small, sgd

ONES = [np.ones(17)]  # x and y share a message


def with_line(say):
    """What say(line) gives, on a worker that talks to one server by bare messages."""

    def work(world):
        roles = Roles(world)
        if roles.is_server:
            return serve(roles, Small(), sgd, ASYNC)
        worker = Worker(roles, shards_of(Small(), 1))
        result = say(worker.lines[0])
        worker.goodbye()
        return result

    return minipar.run(work, 2)


def push(line, number, counts=(3, 5, 0), arrays=ONES, **more):
    head = {"clock": number, "number": number, "rows": 1.0, **more}
    line.tell(Head(wire.PUSH, **head), counts, arrays)
    line.tell(Head(wire.STEP, clock=number, number=number, lr=1.0))


def weights(line):
    """x[0, 0] and what the server says beside it."""
    question = line.ask(Head(wire.PULL, clock=0), [0], outs=[None])
    answer = checked(question.take())
    return answer.arrays[0][0], answer.tail


@pytest.mark.parametrize(
    ("counts", "arrays", "kind", "says"),
    [
        ([3, 5], ONES, UsageError, "unknown key"),
        ([3, 5, 0], [np.ones(16)], ShapeMismatch, "x and 1 more came as"),
        ([0, 0, 1], [np.array([12]), np.ones((1, 2))], UsageError, "table.weight: the ids run"),
        ([3, 5, 0], [np.full(17, np.nan)], Diverged, "x has NaN or infinity"),
        ([3, 5, 0], [], UsageError, "x and 1 more was announced, but did not come"),
    ],
)
def test_a_bad_push_is_refused_when_its_worker_asks_next(counts, arrays, kind, says):
    def say(line):
        push(line, 1, counts, arrays)
        with pytest.raises(kind, match=f"server 1, PUSH of worker 0 refused: .*{says}"):
            weights(line)
        before = weights(line)
        push(line, 2)
        return before, weights(line)

    before, after = with_line(say)[0]
    assert before == (0.0, [0, 0, 0])
    assert after == (-1.0, [1, 1, 0])


@pytest.mark.parametrize(
    ("counts", "arrays", "says"),
    [
        ([1], [np.array([12])], "table.weight: the ids run from 12 to 12"),
        ([2], [np.array([1])], "1 ids of table.weight, expected 2 ids"),
        ([1, 1], [np.array([1])], "rows of 2 tables, expected 1 tables"),
        ([1], [], "rows of 1 tables, expected 1 tables"),
    ],
)
def test_bad_rows_are_refused(counts, arrays, says):
    def say(line):
        question = line.ask(Head(wire.ROWS), counts, arrays, outs=[np.empty((1, 2))])
        with pytest.raises(UsageError, match=f"server 1, ROWS of worker 0 refused: .*{says}"):
            take([question])
        return weights(line)

    assert with_line(say)[0] == (0.0, [0, 0, 0])


def test_a_push_that_is_sent_again_is_applied_once():
    def say(line):
        for number in (1, 1, 2, 1, 2):
            push(line, number)
        return weights(line)

    found, report = with_line(say)
    assert found == (-2.0, [2, 2, 0])
    assert (report.applied, report.repeated) == (2, 3)


def test_a_push_that_is_not_said_to_count_is_not_applied():
    def say(line):
        push(line, 1)
        line.tell(Head(wire.PUSH, 0, 2, rows=1.0), [3, 5, 0], ONES)
        return weights(line)

    found, report = with_line(say)
    assert found == (-1.0, [1, 1, 0])
    assert report.applied == 1


def test_lost_pushes_are_counted_once(capfd):
    def say(line):
        line.number = 5  # as if another incarnation of the server had acknowledged five
        return [line._hello().tail[-1] for _ in range(2)]

    found, report = with_line(say)
    assert found == [5, 0]
    assert report.lost_pushes == {0: 5}
    assert "5 pushes of worker 0 acknowledged after the last snapshot" in capfd.readouterr().err


def test_what_is_no_message_ends_the_server():
    def say(line):
        line.world.send(np.zeros(3), line.rank)

    with pytest.raises(CommError, match="that is no head of a message of the parameter server"):
        with_line(say)


def test_a_server_is_patient_with_workers_that_compute_for_long():
    """Nothing for longer than a timeout, several times, and then a message."""
    waits = [CommTimeout("0"), CommTimeout("1"), (3, "a message")]

    def recv(src):
        found = waits.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    server = Server.__new__(Server)
    server.world = SimpleNamespace(recv=recv)
    assert server.next_message() == (3, "a message") and not waits
