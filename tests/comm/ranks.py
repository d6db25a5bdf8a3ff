"""What ranks do in the tests: functions that processes can import."""

import atexit
import os
import signal
import subprocess
import sys
import time

import numpy as np

from minipar.comm.algorithms import ALGORITHMS
from minipar.comm.transport import ANY
from minipar.errors import CommError, CommTimeout


def conformance(group):
    """Every promise of the transport contract that takes no failure to see; True at the end."""
    for check in (
        all_collectives,
        every_algorithm,
        groups_beside_each_other,
        opposite_large_sends,
        blocking_opposite_sends,
        sent_arrays_may_change,
        order_is_kept,
        any_source,
        any_source_into_a_large_array,
        isend_and_done,
        receive_into,
        many_small_before_any_receive,
        dtypes_and_shapes,
        message_to_oneself,
    ):
        check(group)
        group.barrier()
    return True


def all_collectives(group):
    p, r = group.size, group.rank
    for n in (0, 1, 5, 64, 1000):
        total = group.all_reduce(np.full(n, 2.0**r))  # a lost or doubled rank is its bit
        assert total.shape == (n,) and (total == 2.0**p - 1).all()
        mine = group.reduce_scatter(np.arange(n) * (r + 1))
        assert (mine == np.array_split(np.arange(n) * p * (p + 1) // 2, p)[r]).all()
        assert (group.all_gather(np.full((2, n), r)) == np.arange(p).reshape(p, 1, 1)).all()
        for root in range(p):
            assert (group.broadcast(np.full(n, r), root) == root).all()
            total = group.reduce(np.full(n, 2.0**r), root)
            assert total is None if r != root else (total == 2.0**p - 1).all()
            stack = group.gather(np.full(n, r), root)
            assert stack is None if r != root else (stack == np.arange(p).reshape(p, 1)).all()
            row = group.scatter(stack, root)
            assert row.shape == (n,) and (row == r).all()
        swapped = group.all_to_all(np.full((p, n), r) * p + np.arange(p).reshape(p, 1))
        assert (swapped == np.arange(p).reshape(p, 1) * p + r).all()
    assert group.all_reduce(np.float64(r), op="mean") == (p - 1) / 2


def every_algorithm(group):
    """Also with messages that are too large to be buffered."""
    p, r = group.size, group.rank
    for op, known in ALGORITHMS.items():
        for algorithm in known:
            for n in (p, 40_000 * p):
                x = np.arange(float(n)).reshape(p, -1) + r
                if op == "barrier":
                    group.barrier(algorithm)
                    continue
                got = getattr(group, op)(x, algorithm=algorithm)
                expected = {
                    "broadcast": x - r,
                    "reduce": None if r else p * (x - r) + p * (p - 1) / 2,
                    "all_reduce": p * (x - r) + p * (p - 1) / 2,
                    "gather": None if r else np.stack([x - r + other for other in range(p)]),
                    "scatter": x[r] - r,
                    "all_gather": np.stack([x - r + other for other in range(p)]),
                    "reduce_scatter": p * (x[r : r + 1] - r) + p * (p - 1) / 2,
                    "all_to_all": x[r] - r + np.arange(p).reshape(p, 1),
                }[op]
                assert got is None if expected is None else np.array_equal(got, expected), op


def groups_beside_each_other(group):
    """Three groups of each rank, used in turn, with messages under way in all of them."""
    p, r = group.size, group.rank
    half = group.split(r % 2, key=-r)
    assert half.world_ranks == tuple(range(p))[r % 2 :: 2][::-1]
    alone = group.subgroup([p - 1])
    assert (alone is None) == (r != p - 1)
    for n in (1, 100_000):
        sends = [g.isend(np.full(n, g.size), (g.rank + 1) % g.size) for g in (group, half)]
        for g in (half, group):
            assert (g.all_reduce(np.full(n, 1.0)) == g.size).all()
            assert (g.recv((g.rank - 1) % g.size) == g.size).all()
        for send in sends:
            send.wait()
    quarter = half.split(half.rank % 2)
    assert quarter.all_gather(np.array(r)).tolist() == list(quarter.world_ranks)


def opposite_large_sends(group):
    """4 MB to everybody at once, all sends before any receive: far more than any buffer holds."""
    big = np.full(1 << 19, group.rank, np.float64)
    sends = [group.isend(big, dst) for dst in range(group.size) if dst != group.rank]
    for src in range(group.size):
        if src != group.rank:
            assert (group.recv(src) == src).all()
    for send in sends:
        send.wait()


def blocking_opposite_sends(group):
    """As above with `send`, which returns only when the array may be changed."""
    big = np.full(1 << 18, group.rank, np.float64)
    group.send(big, (group.rank + 1) % group.size)
    big[:] = -1
    assert (group.recv((group.rank - 1) % group.size) == (group.rank - 1) % group.size).all()


def sent_arrays_may_change(group):
    p, r = group.size, group.rank
    for n in (3, 200_000):
        x = np.full(n, r)
        request = group.irecv((r - 1) % p)
        group.send(x, (r + 1) % p)
        x[:] = -1
        assert (request.wait() == (r - 1) % p).all()


def order_is_kept(group):
    p, r = group.size, group.rank
    for i in range(20):
        group.send(np.full(1 + 100 * i, i), (r + 1) % p)
    for i in range(20):
        got = group.recv((r - 1) % p)
        assert got.shape == (1 + 100 * i,) and (got == i).all()


def any_source(group):
    if group.rank == 0:
        got = dict(group.recv(ANY) for _ in range(group.size - 1))
        assert {src: int(x[0]) for src, x in got.items()} == {r: r for r in range(1, group.size)}
        assert not group.poll()
    else:
        group.send(np.array([group.rank]), 0)


def any_source_into_a_large_array(group):
    """Several large messages on their way at once, and one array to receive them into."""
    n = 300_000
    if group.rank == 0:
        out = np.zeros(n)
        for _ in range(group.size - 1):
            src, got = group.recv(ANY, out=out)
            assert got is out and (out == src).all()
    else:
        group.send(np.full(n, float(group.rank)), 0)


def isend_and_done(group):
    if group.size == 1:
        return
    if group.rank == 0:
        request = group.irecv(1)
        group.send(np.zeros(1), 1)
        while not request.done():  # gives the others their turn
            pass
        assert request.wait()[0] == 7
    elif group.rank == 1:
        group.recv(0)
        group.isend(np.array([7]), 0).wait()


def receive_into(group):
    p, r = group.size, group.rank
    out = np.zeros((2, 3))
    group.isend(np.full((2, 3), r, float), (r + 1) % p)
    assert group.recv((r - 1) % p, out=out) is out
    assert (out == (r - 1) % p).all()


def many_small_before_any_receive(group):
    """256 KB are buffered per pair, whoever is not listening yet."""
    p, r = group.size, group.rank
    for i in range(100):
        group.send(np.full(16, i), (r + 1) % p)
    group.barrier()
    assert [int(group.recv((r - 1) % p)[0]) for _ in range(100)] == list(range(100))


def dtypes_and_shapes(group):
    p, r = group.size, group.rank
    for dtype in ("bool", "int32", "int64", "uint8", "float16", "float32", "float64"):
        for shape in ((), (0,), (3, 0, 2), (2, 1, 3)):
            x = np.ones(shape, dtype)
            got = group.sendrecv(x, (r + 1) % p, (r - 1) % p)
            assert got.shape == shape and got.dtype == dtype and (got == 1).all()
    x = np.arange(24.0).reshape(4, 6)[:, ::2].T  # neither C nor Fortran order
    assert (group.sendrecv(x, (r + 1) % p, (r - 1) % p) == x).all()
    assert (group.all_reduce(x) == p * x).all()


def message_to_oneself(group):
    group.send(np.array([5]), group.rank)
    assert group.recv(group.rank)[0] == 5


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
