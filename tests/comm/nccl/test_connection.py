"""Messages from one rank to another: in order, begun before there is a connection, too."""

import threading

import numpy as np

from minipar.comm.frame import Call
from minipar.comm.nccl.connection import RECEIVER, SENDER, Connection
from minipar.comm.nccl.desk import Desk
from minipar.comm.nccl.watch import Watch
from minipar.errors import CommError
from tests.fake_nccl import Nccl
from tests.strict_cupy import cuda

CALL = Call(0, 0, "send", "", "here:1")


class Host:
    timeout_s, failure = 20.0, None

    def __init__(self, rank):
        self.rank = rank

    def note_failure(self, failure):
        self.failure = failure

    def raise_failure(self, call):
        """There is no news."""


def end_of(nccl, side, ident):
    host = Host(side)
    desk = Desk(nccl, host, Watch(host, lambda error: None), cuda.Device(0))
    return host, Connection(desk, side, (0, 1), ident)


def fence():
    event = cuda.Event()
    event.record()
    return event


def eventually(ready):
    for _ in range(1000):
        if ready():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not happen in time")


def test_messages_arrive_in_order_those_from_before_the_connection_too(cupy):
    nccl, ident = Nccl(), bytes(128)
    _, sender = end_of(nccl, SENDER, ident)
    xs = [cupy.asarray(np.full(n, float(n))) for n in (3, 1, 0, 5)]
    sent = [sender.begin(x, fence(), CALL) for x in xs[:2]]
    assert not any(transfer.under_way() for transfer in sent)
    _, receiver = end_of(nccl, RECEIVER, ident)
    eventually(sent[1].under_way)
    sent += [sender.begin(x, fence(), CALL) for x in xs[2:]]
    places = [cupy.empty(x.shape) for x in xs]
    got = [receiver.begin(place, fence(), CALL) for place in places]
    eventually(got[-1].under_way)
    cuda.get_current_stream().wait_event(got[-1].end)
    for place, x in zip(places, xs, strict=True):
        assert (place.get() == x.get()).all()
    assert not nccl.complaints


def test_what_keeps_it_from_connecting_is_told_to_whoever_waits(cupy, monkeypatch):
    monkeypatch.setattr("minipar.comm.nccl.desk.NEWS_S", 0.1)
    nccl = Nccl()

    def refuse(*_):
        raise nccl.NcclError(5)

    nccl.NcclCommunicator = refuse
    host, _ = end_of(nccl, SENDER, bytes(128))
    eventually(lambda: host.failure)
    assert isinstance(host.failure, CommError) and "NCCL reports" in str(host.failure)
