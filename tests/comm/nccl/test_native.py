"""NCCL's own collectives: which of its calls are made, with what places and counts."""

from contextlib import contextmanager

import numpy as np
import pytest

from minipar.comm.agreed import Native
from minipar.comm.nccl import native


class Comm:
    """Writes down what is enqueued; places as elements after the first of `buf`."""

    def __init__(self, rank, size, buf):
        self.rank, self.size, self.calls = rank, size, []
        self._start, self._width = buf.data.ptr, buf.itemsize

    def enqueue(self, method, *arguments):
        self.calls.append((method, *arguments))

    @contextmanager
    def group(self):
        self.calls.append("group")
        yield
        self.calls.append("end")

    def at(self, call, place=1):
        return (call[place] - self._start) // self._width


def how(combine="add", root=0):
    return Native(lambda: None, root, getattr(np, combine), True)


def test_even_pieces_are_one_call_and_uneven_ones_a_group(cupy):
    buf = cupy.asarray(np.zeros(8, "f4"))
    comm = Comm(1, 2, buf)
    native.native_all_gather(comm, how(), buf, [0, 4, 8])
    (call,) = comm.calls
    assert call[0] == "allGather" and comm.at(call) == 4 and call[3:] == (16, 1)
    comm = Comm(1, 3, buf)
    native.native_all_gather(comm, how(), buf, [0, 3, 8, 8])
    first, *calls, last = comm.calls
    assert (first, last) == ("group", "end")
    assert [(c[0], comm.at(c), *c[3:]) for c in calls] == [
        ("broadcast", 0, 12, 1, 0),
        ("broadcast", 3, 20, 1, 1),
    ]


def test_uneven_sums_are_reduced_each_to_its_rank(cupy):
    buf, out = cupy.asarray(np.zeros(5, "f8")), cupy.asarray(np.zeros(2, "f8"))
    comm = Comm(1, 2, buf)
    native.native_reduce_scatter(comm, how("multiply"), buf, [0, 3, 5], out)
    calls = [(c[0], comm.at(c), *c[3:]) for c in comm.calls if c not in ("group", "end")]
    assert calls == [("reduce", 0, 3, 8, 1, 0), ("reduce", 3, 2, 8, 1, 1)]
    assert all(c[2] == out.data.ptr for c in comm.calls if c not in ("group", "end"))


@pytest.mark.parametrize(("rank", "sent"), [(0, (2, 2)), (1, None), (2, (1, 2))])
def test_the_root_gathers_its_own_piece_first(rank, sent, cupy):
    """Of 3 ranks with root 1: pieces of ranks 1, 2, 0."""
    buf = cupy.asarray(np.zeros((3, 2), "u1"))
    comm = Comm(rank, 3, buf)
    native.native_gather(comm, how(root=1), buf, range(4))
    calls = [c for c in comm.calls if c not in ("group", "end")]
    if sent is None:
        assert [(c[0], comm.at(c), c[4]) for c in calls] == [("recv", 2, 2), ("recv", 4, 0)]
    else:
        assert [(c[0], comm.at(c) // 2, c[2]) for c in calls] == [("send", *sent)]


def test_all_to_all_is_a_send_and_a_receive_for_each_rank(cupy):
    rows = cupy.asarray(np.zeros((2, 3), "i2"))
    comm = Comm(0, 2, rows)
    native.native_all_to_all(comm, how(), rows, cupy.asarray(np.zeros((2, 3), "i2")))
    calls = [c for c in comm.calls if c not in ("group", "end")]
    assert [(c[0], c[2], c[4]) for c in calls] == [
        (name, 6, peer) for peer in range(2) for name in ("send", "recv")
    ]
    assert [comm.at(c) for c in calls if c[0] == "send"] == [0, 3]


def test_nothing_is_asked_of_nccl_for_empty_arrays(cupy):
    buf = cupy.asarray(np.zeros(0, "f4"))
    comm = Comm(0, 2, cupy.asarray(np.zeros(1)))
    native.native_all_reduce(comm, how(), buf)
    native.native_broadcast(comm, how(), buf)
    native.native_all_gather(comm, how(), buf, [0, 0, 0])
    native.native_gather(comm, how(), buf.reshape(2, 0), range(3))
    assert comm.calls == []


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_where_a_rank_has_nan_is_a_second_collective(dtype, cupy):
    buf = cupy.asarray(np.array([1.0, np.nan, -np.inf, -0.0], dtype))

    class Alone(Comm):
        def enqueue(self, method, send, recv, count, code, op):
            self.calls.append((method, count, code, op))

    comm = Alone(0, 1, buf)
    native.native_all_reduce(comm, how("minimum"), buf)
    assert comm.calls[1] == ("allReduce", 4, 1, 2) and comm.calls[0][3] == 3
    assert np.isnan(buf.get()[1]) and (buf.get()[[0, 2, 3]] == [1, -np.inf, 0]).all()
    comm.calls.clear()
    native.native_all_reduce(comm, how("add"), buf)
    native.native_all_reduce(comm, how("maximum"), cupy.asarray(np.zeros(2, "i4")))
    assert len(comm.calls) == 2
