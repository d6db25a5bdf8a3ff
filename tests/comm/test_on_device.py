"""Work and its results in the order of a GPU's streams."""

import threading

import pytest

from minipar.comm.on_device import Later, has_come, in_callers_stream, taken
from tests.strict_cupy import cuda


def test_work_is_done_in_the_stream_of_its_caller(cupy):
    seen = []

    def work():
        seen.append((cuda.get_current_stream(), cuda.Device().id))

    stream = cuda.Stream(non_blocking=True)
    with cuda.Device(1), stream:
        wrapped = in_callers_stream(work)
    thread = threading.Thread(target=wrapped)
    thread.start()
    thread.join()
    work()
    assert seen == [(stream, 1), (cuda.Stream.null, 0)]


def test_a_later_result_makes_the_callers_stream_wait(cupy):
    waiting, event = cuda.Work(), cuda.Event()
    event.pending = [waiting]
    later = Later("total", event)
    with cuda.Stream() as stream:
        assert not later.ready() and taken(later) == "total"
        assert stream.pending == [waiting]
    waiting.done.set()
    assert later.ready() and taken("other") == "other"


def test_an_error_of_the_gpu_is_not_taken_for_not_yet(cupy, monkeypatch):
    def fails(pointer):
        raise cuda.CUDARuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(cuda.runtime, "eventQuery", fails)
    with pytest.raises(cuda.CUDARuntimeError):
        has_come(cuda.Event())
