"""What ranks do in test_reach and test_loans: functions that processes can import."""

import os
import signal
import time

import numpy as np

from minipar.comm import direct, loans, reach
from minipar.errors import CommError

N = 200_003  # float32: 800 KB, above what a send buffers


def small_limits():
    """Reach already for small arrays, in many pieces."""
    direct.COPIED_BYTES = direct.ADDED_BYTES = loans.LENT_BYTES = 1 << 16
    direct.CACHE_BYTES = reach.PIECE_BYTES = loans.PIECE_BYTES = 1 << 17


def lock_the_door(group):
    """As where the system lets nobody in: the doorplate shows no process."""
    shared = group._transport._shared
    shared.cells[shared._own_cell(shared.place)] = 0


def reaches(group):
    """Whether the ranks have found out that they reach each other's private memory."""
    return group._calls.circle._reaches


def of(rank, n=N):
    return np.random.default_rng(rank).integers(-100, 100, n).astype(np.float32)


def collectives(group, locked):
    """All that may reach into private memory, against NumPy; whether it did."""
    small_limits()
    if locked == group.rank:
        lock_the_door(group)
    p, r = group.size, group.rank
    x, everybody = of(r), np.stack([of(i) for i in range(p)])
    total, before = everybody.sum(0), x.copy()
    own = np.array_split(total, p)[r]
    for _ in range(2):
        assert (group.all_reduce(x) == total).all()
        assert (group.all_gather(x) == everybody).all()
        assert (group.reduce_scatter(x) == own).all()
        for root in range(p):
            assert (group.broadcast(x, root) == everybody[root]).all()
        assert (x == before).all()
    out = np.empty_like(own)
    assert group.reduce_scatter(x, out=out) is out and (out == own).all()
    assert group.all_reduce(x, out=x) is x and (x == total).all()
    return reaches(group)


def odd_arrays(group):
    """Gaps, Fortran order, no elements, other dtypes, a row of the result, memory of the heap."""
    small_limits()
    p, r = group.size, group.rank
    wide = np.arange(2.0 * N).reshape(N, 2) + r
    for x in (wide[:, 0], wide[::2].T, np.asfortranarray(wide), wide[::-1], wide[:0]):
        everybody = np.stack([x - r + i for i in range(p)])
        assert (group.all_gather(x) == everybody).all()
        assert (group.all_reduce(x) == everybody.sum(0)).all()
        assert (group.broadcast(x, p - 1) == everybody[-1]).all()
        result = np.zeros_like(wide)[: len(x)] if x.shape == wide[: len(x)].shape else np.copy(x)
        group.all_reduce(x, out=result)
        assert (result == everybody.sum(0)).all()
        assert (group.sendrecv(x, (r + 1) % p, (r - 1) % p) == everybody[r - 1]).all()
    rows = np.zeros((p, N), np.int64)
    rows[r] = r
    assert (group.all_gather(rows[r], out=rows) == np.arange(p)[:, None]).all()
    half = np.full(N, r + 1, np.float16)
    assert (group.all_reduce(half, op="max") == p).all()
    mixed = group.empty(N) if r == 0 else np.empty(N, np.float32)  # each where it is reached
    mixed[:] = r
    assert (group.broadcast(mixed, p - 1, out=mixed) == p - 1).all()
    mixed[:] = r
    assert (group.all_reduce(mixed, out=mixed) == p * (p - 1) / 2).all()
    return reaches(group)


def killed_while_it_is_read(group, what):
    """Rank 1 is killed when rank 0 begins to copy from it; what rank 0 hears, and what it keeps."""
    small_limits()
    for _ in range(2):  # the first large message finds out whether it can be done
        group.sendrecv(of(0), 1 - group.rank, 1 - group.rank)
    group.broadcast(of(0))
    if not reaches(group):
        return "not here"
    pid = group.all_gather(np.array(os.getpid()))[1]
    copy = reach._copy

    def kill_first(way, whom, *arguments):
        if whom == pid:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        copy(way, whom, *arguments)

    if group.rank == 0:
        reach._copy = kill_first
    x = of(group.rank)
    try:
        if what == "send":
            group.recv(1) if group.rank == 0 else group.send(x, 0)
        else:
            group.broadcast(x, 1, out=x)
    except CommError as error:
        print(type(error).__name__, flush=True)
        if what == "broadcast":
            held = group._calls.circle.among([1, 0])._held
            print("kept" if held is not None else "gone", flush=True)
        raise


def many_sends(group, locked):
    """Arrays that are written over as soon as `send` returns; how many pieces the sender copied."""
    small_limits()
    if locked == group.rank:
        lock_the_door(group)
    sizes = np.random.default_rng(5).integers(60_000, 3 * N, 40)
    written = _count_writes()
    if group.rank == 0:
        _slow_down_fetches()
    for k, n in enumerate(sizes):
        for src in (1, 0):
            if group.rank == src:
                x = np.full(n, k, np.int32)
                group.send(x, 1 - src)
                x[:] = -1
            else:
                assert (group.recv(src) == k).all()
    return len(written)


def _count_writes():
    written, write = [], reach.Private.write

    def counted(self, start, part):
        written.append(start)
        write(self, start, part)

    reach.Private.write = counted
    return written


def _slow_down_fetches():
    """So that the sender has time to help."""
    fetch = reach.Private.fetch

    def slow(self, start, into):
        time.sleep(0.001)
        fetch(self, start, into)

    reach.Private.fetch = slow


def sent_at_the_end(group):
    """A large send under way when its sender returns, and the receiver looks late."""
    small_limits()
    for _ in range(2):
        group.sendrecv(of(0), 1 - group.rank, 1 - group.rank)
    if group.rank == 0:
        group.isend(of(7), 1)
        return True
    time.sleep(0.3)
    return bool((group.recv(0) == of(7)).all())


def refused(group):
    """Rank 0 reads where there is no memory: the kernel says so, and so does the error."""
    small_limits()
    group.broadcast(of(0))
    if not reaches(group):
        return "not here"
    if group.rank == 0:
        shared = group._transport._shared
        window = reach.Private(
            os.getpid(), 8, np.dtype("f4"), lambda: None, lambda error: _complain(shared, error)
        )
        try:
            window.read(0, 4)
        except CommError as error:
            return str(error)
    return "fine"


def _complain(shared, error):
    from minipar.comm.frame import Call

    shared._lost(1, Call(0, 0, "broadcast", "", "here:1"), error)
