"""What is under way on a GPU is kept, forgotten when it has ended, and ended if it does not."""

import threading
import time
import weakref

import numpy as np
import pytest

from minipar.comm.frame import Call
from minipar.comm.nccl import watch as module
from minipar.comm.nccl.watch import Watch
from minipar.comm.transport import ANY
from minipar.errors import CommError, CommTimeout, PeerLost
from tests.strict_cupy import cuda

CALL = Call(0, 3, "all_reduce", "sum float32[2]", "train.py:7")


class Host:
    rank, timeout_s, failure = 0, 0.2, None

    def note_failure(self, failure):
        self.failure = self.failure or failure

    def last_call_of(self, rank):
        return f"barrier #1 of rank {rank}"


class Handle:
    """Of a communicator."""

    def __init__(self, hangs=False, broken=None):
        self.aborted, self._hangs, self._broken = threading.Event(), hangs, broken

    def check_async_error(self):
        if self._broken is not None:
            raise self._broken

    def abort(self):
        self.aborted.set()
        if self._hangs:
            time.sleep(60)


@pytest.fixture
def watch(cupy, monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    monkeypatch.setattr(module, "ABORT_S", 0.2)
    gave_up = []
    made = Watch(Host(), gave_up.append)
    made.gave_up, made.host = gave_up, made._host
    yield made
    made.end()


def event(done):
    work = cuda.Work()
    made = cuda.Event()
    made.pending = [work]
    if done:
        work.done.set()
    return made, work


def eventually(condition):
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_what_an_operation_needs_is_kept_until_its_end(watch):
    array = np.zeros(3)
    alive, (end, work) = weakref.ref(array), event(done=False)
    watch.add(CALL, ANY, end, array)
    array = None
    assert not watch.idle() and alive() is not None
    work.done.set()
    assert watch.idle() and alive() is None


@pytest.mark.parametrize(
    ("whom", "says"), [(ANY, "for any rank"), (2, "for rank 2 .*last call of rank 2: barrier #1")]
)
def test_what_takes_too_long_is_aborted_and_told(watch, whom, says):
    handle = watch.handles["a"] = Handle()
    watch.add(CALL, whom, event(done=False)[0], None)
    watch.start()
    eventually(lambda: watch.gave_up)
    with pytest.raises(CommTimeout, match=f"rank 0 has waited 0 s {says}"):
        raise watch.gave_up[0]
    assert watch.host.failure is watch.gave_up[0] and handle.aborted.is_set()


def test_a_call_of_nccls_that_does_not_return_is_late_as_well(watch):
    watch.host.timeout_s = -0.9  # such calls have a second more
    watch.start()
    with watch.blocking(CALL, 1):
        eventually(lambda: watch.host.failure)
    assert isinstance(watch.host.failure, CommTimeout)


def test_the_rank_itself_may_end_first(watch):
    watch.start()
    watch.host.note_failure(PeerLost("rank 1 was killed"))
    time.sleep(0.05)
    watch.end()
    time.sleep(0.3)
    assert not watch.gave_up


def test_an_abort_that_hangs_holds_nobody_up(watch):
    watch.handles.update(a=Handle(hangs=True), b=Handle())
    begun = time.monotonic()
    assert not watch.abort() and time.monotonic() - begun < 2
    assert not watch.handles and watch.abort()


@pytest.mark.parametrize("news", [True, False])
def test_an_error_of_nccls_is_what_the_launcher_knows_if_it_knows(watch, news):
    watch.handles["a"] = Handle(broken=RuntimeError("remote process exited"))
    watch.start()
    if news:
        watch.host.note_failure(PeerLost("rank 1 was killed"))
    eventually(lambda: watch.gave_up)
    assert type(watch.gave_up[0]) is (PeerLost if news else CommError)
    assert ("rank 1 was killed" if news else "NCCL reports: remote") in str(watch.gave_up[0])


def test_in_progress_is_no_error_and_nothing_is_asked_at_the_end(watch):
    watch.handles["a"] = Handle(broken=KeyError(7))  # what CuPy makes of it
    watch.handles["b"] = Handle(broken=RuntimeError("freed"))
    watch.ask_no_more()
    watch.start()
    time.sleep(0.1)
    assert watch.host.failure is None
