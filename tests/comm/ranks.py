"""What ranks do in the tests: functions that processes can import."""

import atexit
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from zlib import crc32

import numpy as np

from minipar.comm.tracing import tracing
from minipar.comm.transport import ANY
from minipar.errors import CommError, CommTimeout
from minipar.events import EVERYBODY, last, recording
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


# -- asynchronous calls -----------------------------------------------------------------------


def asynchronous_calls(group):
    """All collectives at once under way; True if each returns what it does otherwise."""
    p, r = group.size, group.rank
    x, rows = np.arange(1000.0) + r, np.arange(7.0 * p).reshape(p, 7) + r
    stack = group.gather(rows)

    def begin(**more):
        return [
            group.all_reduce(x, **more),
            group.all_reduce(x, "mean", algorithm="ring", **more),
            group.broadcast(x, root=p - 1, **more),
            group.reduce(x, root=0, **more),
            group.gather(x, root=p - 1, **more),
            group.scatter(stack, **more),
            group.all_gather(x, **more),
            group.reduce_scatter(x, **more),
            group.all_to_all(rows, **more),
            group.barrier(**more),
        ]

    handles = begin(async_op=True)
    for handle in reversed(handles):
        handle.wait()
        assert handle.done()
    for handle, expected in zip(handles, begin(), strict=True):
        got = handle.wait()
        assert np.array_equal(got, expected) if expected is not None else got is None
    return True


def crossing(group):
    """Each rank waits for the other while its own all-reduce has only begun."""
    other = 1 - group.rank
    if group.rank == 0:
        handle = group.all_reduce(np.array([1.0]), async_op=True)
        group.send(np.array([7.0]), other)
        message = group.recv(other)
        return float(handle.wait()[0]), float(message[0])
    message = group.recv(other)
    handle = group.all_reduce(np.array([2.0]), async_op=True)
    group.send(message, other)
    return float(handle.wait()[0]), float(message[0])


def plain_among_asynchronous(group):
    """The sequence numbers of all calls, as the collectives began."""
    big = np.ones(200_000)
    for _ in range(2):
        first = group.all_reduce(big, async_op=True)
        second = group.all_reduce(big, async_op=True)
        assert (group.all_reduce(np.ones(3)) == group.size).all()  # overtakes nobody
        assert first.done() and second.done()
    return [event.sequence for event in last() if event.peer == EVERYBODY]


def asynchronous_mismatch(group, wait=True):
    handle = group.all_reduce(np.zeros(3 + group.rank), async_op=True)
    if wait:
        handle.wait()


def asynchronous_deadlock(group):
    if group.rank == 0:
        group.all_reduce(np.zeros(3), async_op=True).wait()
    else:
        group.recv(0)


# -- shared memory ----------------------------------------------------------------------------


def sums(group):
    """Hashes of sums whose bits depend on the order in which they are added up."""
    found = []
    for n in (1, 5, 1000, 70_000, 700_001):
        x = np.random.default_rng(group.rank * 1000 + n).normal(size=n).astype(np.float32)
        for op in ("sum", "prod", "mean"):
            found.append(crc32(group.all_reduce(x, op)))
        found.append(crc32(group.reduce_scatter(x)))
        total = group.reduce(x)
        found.append(None if total is None else crc32(total))
    return found


def shared_arrays(group):
    """All-reduce of arrays from group.empty: all of them, some, views of them; True at the end."""
    p, r = group.size, group.rank
    total = p * (p + 1) / 2
    for n in (1, 1000, 100_003, 1_000_001):
        shared, again = group.empty(n), group.empty((n, 2), np.float64)
        for x in (shared, again, again[: n // 2], np.empty(n) if r else again.reshape(-1)[:n]):
            x[...] = r + 1
            assert group.all_reduce(x, out=x) is x
            assert (x == total).all()
        shared[...] = r + 1
        assert (group.all_reduce(shared) == total).all() and (shared == r + 1).all()
        assert (group.all_reduce(shared, "max", algorithm="ring", out=shared) == p).all()
        del shared, again, x
    return True


def shared_arrays_with_gaps(group):
    """All-reduce into views of arrays from group.empty that skip elements, or go backwards."""
    x = group.empty(400_000)
    for view in (x[::2], x[::-1], x.reshape(-1, 4)[:, 1], x[300_000:]):
        x[:] = np.arange(len(x)) % 100
        want, before = x.copy(), view.copy()
        group.barrier()
        assert (group.all_reduce(view, out=view, algorithm="direct") == group.size * before).all()
        view[...] = before
        assert (x == want).all()  # what lies between is as it was
        group.barrier()
    return True


def lent_arrays(group):
    """Large arrays from group.empty, sent by saying where they are; True at the end."""
    p, r = group.size, group.rank
    x = group.empty(200_000, np.float64)
    for k in range(5):
        x[:] = 100 * k + r
        request = group.irecv((r - 1) % p, out=np.empty_like(x) if k % 2 else None)
        group.send(x[k:], (r + 1) % p) if k > 1 and not k % 2 else group.send(x, (r + 1) % p)
        x[:] = -1
        assert (request.wait() == 100 * k + (r - 1) % p).all()
    group.barrier()
    sends = []
    for k in range(3):  # nobody holds these any more, and they are not yet fetched
        y = group.empty(100_000, np.float64)
        y[:] = 10 * k + r
        group.isend(y, (r + 1) % p)
        del y
    for k in range(3):
        assert (group.recv((r - 1) % p) == 10 * k + (r - 1) % p).all()
    big = group.empty(300_000, np.float64)
    big[:] = r
    sends = [group.isend(big, dst) for dst in range(p) if dst != r]
    for src in range(p):  # opposite sends, each rank receiving only now
        assert src == r or (group.recv(src) == src).all()
    for send in sends:
        send.wait()
    return True


def stops_itself(group):
    group.barrier()
    group.all_reduce(np.zeros(2))
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    group.all_reduce(np.zeros(2))


def prints_when_told(group, path):
    """Wait until the test says go, then print more than a pipe holds."""
    with open(f"{path}/{group.rank}", "w") as file:
        file.write(str(os.getpid()))
    while not group.broadcast(np.array(os.path.exists(f"{path}/go"))):
        time.sleep(0.005)
    open(f"{path}/printing-{group.rank}", "w").close()
    for i in range(3000):
        print(f"rank {group.rank} line {i} " + "." * 60)
    group.barrier()


def starts_processes(group, path):
    """Each rank starts a process, which outlives a rank that is killed."""
    child = subprocess.Popen(["sleep", "600"])
    with open(f"{path}/{group.rank}", "w") as file:
        file.write(str(child.pid))
    child.wait()


def several(group):
    for _ in range(20):
        group.all_reduce(np.ones(1000))


def total(group, x):
    return x.sum()


def forks(group, path):
    """The copy tries to use the group, and returns like the rank."""
    copy = os.fork()
    if copy == 0:
        try:
            group.all_reduce(np.full(2, 100.0))
        except CommError as error:
            with open(f"{path}/{group.rank}", "w") as file:
                file.write(str(error))
        return None
    os.waitpid(copy, 0)
    return group.all_gather(np.array(group.rank + 1.0)).tolist()


# -- what is traced ---------------------------------------------------------------------------

TRACED_OPS = (
    *("all_reduce", "reduce", "broadcast", "all_gather", "gather", "scatter", "reduce_scatter"),
    *("all_to_all", "barrier", "split"),
)


def traced_calls(group, folder):
    """Every call by every algorithm, small and large, traced; the messages as `recording` counts
    them: [((src, dst, op, bytes), how many)].
    """
    p, pair = group.size, group.split(group.rank // 2)
    with tracing(group, folder), recording() as log:
        for n in (5, 2**18):  # the latter is shown through windows
            for algorithm in ("ring", "tree", "naive", "direct", "halving_doubling", None):
                group.all_reduce(np.ones(n, np.float32), algorithm=algorithm)
            shared = group.empty((n,), np.float32)
            shared[...] = 1
            group.all_reduce(shared)
            group.broadcast(np.ones(n, np.float32), root=p - 1)
            group.broadcast(shared, root=0)
            group.all_gather(np.ones(n, np.float32))
            group.reduce(np.ones(n), root=1)
            group.gather(np.ones(n), root=1)
            group.scatter(np.ones((p, n)) if group.rank == 0 else None, root=0)
            group.reduce_scatter(np.ones((p, n), np.float32))
            group.all_to_all(np.ones((p, n), np.float32))
            group.sendrecv(np.ones(n), (group.rank + 1) % p, (group.rank - 1) % p)
        group.all_reduce(np.ones(3), async_op=True).wait()
        pair.all_reduce(np.ones(3))
        group.split(0).barrier()
        group.barrier()
    return list(Counter((e.rank, e.peer, e.op, e.nbytes) for e in log).items())


def traced_steps(group, config, folder):
    """Two steps of a training, traced."""
    from minipar.training import Trainer

    with tracing(group, folder):
        trainer = Trainer(group, config)
        for _ in range(config.steps):
            trainer.train_step()
