"""A rank's calls to NCCL: one at a time, groups that always end, errors with a name."""

import threading

import pytest

from minipar.comm.frame import Call
from minipar.comm.nccl import desk as module
from minipar.comm.nccl.communicator import Communicator
from minipar.comm.nccl.desk import Desk
from minipar.errors import CommError, PeerLost
from tests.fake_nccl import NcclError

CALL = Call(0, 3, "all_reduce", "sum float32[2]", "train.py:7")


class Host:
    rank, failure = 1, None

    def raise_failure(self, call):
        if self.failure is not None:
            raise self.failure


class Nccl:
    NcclError = NcclError

    def __init__(self):
        self.groups = []

    def groupStart(self):
        self.groups.append("start")

    def groupEnd(self):
        self.groups.append("end")


@pytest.fixture
def desk(monkeypatch):
    monkeypatch.setattr(module, "NEWS_S", 0.1)
    return Desk(Nccl(), Host(), None, None)


def fails(*_):
    raise NcclError(2)


def test_an_error_names_rank_and_call(desk):
    with pytest.raises(CommError, match=r"rank 1, all_reduce #3 .* at train.py:7: NCCL reports"):
        desk.do(CALL, fails, 1, 2)


def test_the_failure_of_another_rank_comes_first(desk):
    threading.Timer(0.02, setattr, [desk.host, "failure", PeerLost("rank 0 was killed")]).start()
    with pytest.raises(PeerLost, match="rank 0 was killed"):
        desk.do(CALL, fails)


def test_a_group_ends_also_if_something_in_it_fails(desk):
    with pytest.raises(CommError), desk.group(CALL):
        desk.do(CALL, fails)
    assert desk.nccl.groups == ["start", "end"]


def test_two_threads_take_turns(desk):
    inside, most = [], []

    def method():
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.005)
        inside.pop()

    threads = [threading.Thread(target=desk.do, args=(CALL, method)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_a_communicator_puts_operations_into_its_stream(desk):
    class Handle:
        def allReduce(self, *arguments):
            seen.append(arguments)

    class Stream:
        ptr = 77

    seen = []
    comm = Communicator(desk, Handle(), Stream(), (1, 2))
    with comm.group():
        comm.enqueue("allReduce", 5, 6)
    assert seen == [(5, 6, 77)] and (comm.rank, comm.size) == (1, 2)
