"""What ranks do in the tests: functions that processes can import."""

import atexit
import os
import signal
import sys
import time

import numpy as np

from minipar.comm.transport import ANY
from minipar.errors import CommTimeout
from minipar.testing import check_transport


def conformance(group):
    """Every promise of the transport contract that takes no failure to see; True at the end."""
    check_transport(group)
    return True


# -- ways to fail -----------------------------------------------------------------------------


def fail(group, how):
    """Rank 1 fails in the given way while the others are in an all_reduce."""
    group.barrier()
    if group.rank == 1:
        if how == "raise":
            raise ValueError("rank 1 has had enough")
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "_exit":
            os._exit(3)
        if how == "exit":
            sys.exit(7)
        if how == "return":
            return
        if how == "odd":
            raise OddError(1, 2)
        if how == "shape":
            group.all_reduce(np.zeros(3, np.float32))
        if how == "dtype":
            group.all_reduce(np.zeros(2, np.float64))
        if how == "op":
            group.all_reduce(np.zeros(2, np.float32), op="mean")
        if how == "other":
            group.barrier()
        if how == "send":
            group.send(np.zeros(2, np.float32), 0)
            group.send(np.zeros(2, np.float32), 2 % group.size)
            return
    group.all_reduce(np.zeros(2, np.float32))


class OddError(Exception):
    """Cannot be unpickled: its arguments are not those of __init__."""

    def __init__(self, a, b):
        super().__init__("odd")


def late(group, seconds):
    """Rank 1 comes to the barrier too late."""
    if group.rank == 1:
        time.sleep(seconds)
    group.barrier()


def busy(group, path):
    """Tell the test which processes there are, then compute without end."""
    group.barrier()
    with open(f"{path}/{group.rank}", "w") as file:
        file.write(str(os.getpid()))
    while True:
        time.sleep(0.01)


def waiting(group, path):
    """As busy, but all except rank 0 wait for rank 0."""
    with open(f"{path}/{group.rank}", "w") as file:
        file.write(str(os.getpid()))
    if group.rank == 0:
        while True:
            time.sleep(0.01)
    group.barrier()


def environment(group, name):
    return os.environ.get(name)


def rank_and_big_result(group, n):
    return np.full(n, group.rank)


def unpicklable(group):
    return lambda: None


def latin(group):
    print(f"hello from {group.rank}")
    print("the same")
    print("to stderr", file=sys.stderr)
    sys.stdout.write("no newline")


def soak(group, rounds):
    """A long mix of sizes and calls, each checked; the last total."""
    sizes = np.random.default_rng(0).integers(0, 300_000, rounds)
    for n in sizes:
        total = group.all_reduce(np.full(n, 2.0**group.rank))
        assert (total == 2.0**group.size - 1).all()
        assert (
            group.broadcast(np.full(n // 3, group.rank), int(n) % group.size) == n % group.size
        ).all()
    return total


def deadlock(group, how):
    """Three ranks that end up waiting for each other."""
    group.barrier()
    if how == "some have finished" and group.rank == 0:
        return
    if how == "send for all_reduce" and group.rank == 1:
        group.send(np.zeros(2), 2)
    elif how == "send for all_reduce":
        group.all_reduce(np.zeros(2), algorithm="ring")
    others = {"any": ANY, "some have finished": 3 - group.rank}
    group.recv(others.get(how, (group.rank + 1) % 3 if how == "receive first" else 0))


def left_out(group, how):
    """All return, although they did not make the same calls."""
    if how == "each is root":
        group.broadcast(np.full(2, group.rank), root=group.rank)
    elif group.rank == 0:
        group.broadcast(np.zeros(2))


def slow_receiver(group, seconds):
    """Rank 0 has returned long before rank 1 takes what it sent: far more than the ring holds."""
    if group.rank == 0:
        for i in range(12):
            group.isend(np.full(25_000, i), 1)
        return None
    time.sleep(seconds)
    return [int(group.recv(0)[0]) for _ in range(12)]


def asks_for_ever(group):
    if group.rank == 0:
        request = group.irecv(1)
        while not request.done():
            pass


def long_message(group):
    group.barrier()
    if group.rank == 1:
        raise ValueError("x" * 1_000_000)
    if group.rank == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    group.barrier()


def breaks_at_exit(group, how):
    if group.rank == 1:
        if how == "exit code":
            atexit.register(os._exit, 5)
        else:
            atexit.register(os.kill, os.getpid(), signal.SIGSEGV)


def retries(group):
    """Rank 1 gives up waiting once, and asks again: the message is for the second."""
    if group.rank == 0:
        time.sleep(1.0)
        group.send(np.array([7]), 1)
        return None
    while True:
        try:
            return int(group.recv(0)[0])
        except CommTimeout:
            pass
