"""A group whose arrays travel as a GPU's: what goes in and comes out is NumPy's."""

import numpy as np

import minipar
from minipar.testing.devices import OnDevice


def test_arrays_go_to_the_gpu_and_come_back(cupy):
    def work(group):
        seen = []
        send, receive = group.isend, group.recv
        group.isend = lambda x, dst: seen.append(type(x)) or send(x, dst)
        group.recv = lambda *a, **k: seen.append(type(got := receive(*a, **k))) or got
        aboard = OnDevice(group, cupy)
        right, left = (group.rank + 1) % group.size, (group.rank - 1) % group.size
        out, x = np.zeros(3), np.full(3, float(group.rank))
        pending = aboard.isend(x, right)
        assert aboard.recv(left, out=out) is out and (out == left).all()
        pending.wait()
        assert seen == [cupy.ndarray] * 2
        assert type(aboard.all_reduce(x)) is np.ndarray and aboard.rank == group.rank
        handle = aboard.all_reduce(x, async_op=True)
        assert (handle.wait() == 1).all() and handle.done()
        half = aboard.split(0)
        assert isinstance(half, OnDevice) and half.size == 2
        return aboard.barrier()

    assert minipar.run(work, 2) == [None, None]
