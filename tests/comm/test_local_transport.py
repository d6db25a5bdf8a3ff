"""Messages between threads: what is copied, and when a send is done; all else: test_local.py."""

import threading

import numpy as np
import pytest

import minipar
from minipar.comm.group import Group
from minipar.comm.local import LocalWorld
from minipar.comm.local_transport import LocalTransport
from minipar.errors import Deadlock


@pytest.mark.parametrize("buffer_bytes", [0, 8, 1 << 20])
def test_only_without_buffers_is_it_a_deadlock_when_both_send_first(buffer_bytes):
    """With them, also a send that is larger than the buffer goes to a rank that waits."""

    def both_send_first(group):
        group.send(np.zeros(2), 1 - group.rank)  # 16 bytes
        return group.recv(1 - group.rank)

    world, outcome = LocalWorld(2, buffer_bytes), []

    def live(rank):
        world.enter(rank)
        try:
            both_send_first(Group(LocalTransport(world, rank)))
            outcome.append("done")
        except Deadlock:
            outcome.append("deadlock")
        world.leave(rank)

    threads = [threading.Thread(target=live, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    world.start()
    for thread in threads:
        thread.join()
    assert outcome == (["done"] if buffer_bytes else ["deadlock"]) * 2


def test_a_large_message_to_oneself():
    def work(group):
        x = np.arange(100_000)
        group.send(x, group.rank)
        x[:] = 0
        return group.recv(group.rank)

    assert (minipar.run(work, 1)[0] == np.arange(100_000)).all()


def test_a_receiver_of_an_unbuffered_send_has_its_own_copy():
    def work(group):
        x = np.full(100_000, group.rank)  # larger than the buffer
        send = group.isend(x, 1 - group.rank)
        got = group.recv(1 - group.rank)
        send.wait()
        group.barrier()
        x[:] = -1
        group.barrier()
        return int(got[0])

    assert minipar.run(work, 2) == [1, 0]
