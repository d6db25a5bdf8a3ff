"""What ranks do in the tests of the mpi backend: a script for mpirun, `mpi_ranks.py NAME [ARG]`."""

import sys
import time
from pathlib import Path

import numpy as np

import minipar
from minipar.comm.group import Group
from minipar.comm.mpi import job, streams
from minipar.comm.mpi.transport import MpiTransport
from minipar.errors import UsageError
from minipar.events import recording
from minipar.testing.transports import PROMISES, every_collective_works
from tests.comm import gpu_ranks, losing, ranks

MESSAGES = tuple(promise for promise in PROMISES if promise is not every_collective_works)

DTYPES = ("bool", "int8", "int64", "uint16", "float16", "float32", "float64", "complex64")


def conformance(group):
    assert group.backend == "mpi"
    ranks.conformance(group)


def native(group):
    """MPI's own collectives give what ours give, in the world and in groups of other orders."""
    p = group.size
    for some in (group, group.split(group.rank % 2, key=-group.rank), group.subgroup([p - 1])):
        if some is not None:
            moved_alike(some)
            reduced_alike(some)


def moved_alike(group):
    p = group.size
    for dtype in (*DTYPES, *bfloat16()):
        for shape in ((p, 0), (p, 3), (p, 5, 2)):
            x = (np.arange(np.prod(shape)).reshape(shape) + group.rank).astype(dtype)
            alike(group.all_gather, x)
            alike(group.all_to_all, x)
            alike(group.all_to_all, np.asfortranarray(x))
            for root in range(p):
                alike(group.broadcast, x, root)
                alike(group.gather, x, root)
                alike(group.scatter, x if group.rank == root else None, root)
    group.barrier(algorithm="native")


def reduced_alike(group):
    p, r = group.size, group.rank
    for dtype in (*DTYPES, *bfloat16()):
        for op in ("sum", "mean", "prod", "min", "max"):
            for n in (0, 1, 2 * p + 1, 1000):
                x = (np.arange(n) % 3 + (np.arange(n) + r) % 2).astype(dtype)
                if n > 1 and x.dtype.kind == "f" and r == p - 1:
                    x[1] = np.nan
                try:
                    group.all_reduce(x, op)
                except UsageError:  # not every op is defined for every dtype
                    continue
                alike(group.all_reduce, x, op)
                alike(group.reduce_scatter, x, op)
                for root in range(p):
                    alike(group.reduce, x, root, op)


def alike(call, *arguments):
    """Small integers and their quotients: no rounding, whatever the order."""
    ours, theirs = call(*arguments), call(*arguments, algorithm="native")
    if ours is None:
        assert theirs is None
    else:
        assert theirs.dtype == ours.dtype and theirs.shape == ours.shape
        assert theirs.tobytes() == ours.tobytes() or np.array_equal(
            theirs.astype(complex), ours.astype(complex), equal_nan=True
        ), (call, arguments, ours, theirs)


def bfloat16():
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return ()
    return (bfloat16,)


def in_pieces(group):
    streams.PIECE_BYTES = 50_000
    ranks.conformance(group)


def changed_before_it_is_taken(group, path):
    """Rank 1 looks at no message until rank 0 has changed what it sent."""
    if group.rank == 0:
        for n in (3, 1000, 30_000):  # inline, and with a payload of its own
            x = np.full(n, 1.0)
            group.send(x, 1)
            x[:] = -1
        Path(path).touch()
    else:
        while not Path(path).exists():
            time.sleep(0.01)
        for _ in range(3):
            assert (group.recv(0) == 1).all()


def slow_receiver(group):
    got = ranks.slow_receiver(group, 2.0)
    assert got == (list(range(12)) if group.rank else None)


def retries(group):
    assert ranks.retries(group) == (7 if group.rank else None)


def all_ranks(group):
    assert minipar.init() is group
    assert group.all_gather(np.array(group.rank)).tolist() == list(range(3))


def on_a_gpu(group):
    """Arrays of the stand-in for CuPy, through host memory."""
    gpu_ranks.stand_in()
    assert gpu_ranks.conformance(group, MESSAGES) and gpu_ranks.some_of_all(group)


def busy(group, path):
    ranks.busy(group, path)


def messages_of_native(group):
    with recording() as log:
        assert group.all_reduce(np.array(1), algorithm="native") == group.size
    if group.rank == 0:
        print(len(log), flush=True)


def asynchronous(group):
    for _ in range(10):
        ranks.asynchronous_calls(group)
    if group.size == 2:
        assert ranks.crossing(group) == (3.0, 7.0)
    for n in (1, 100_000):
        x = np.full(n, 1.0)
        handle = group.all_reduce(x, algorithm="native", async_op=True)
        assert group.sendrecv(x, (group.rank + 1) % group.size, (group.rank - 1) % group.size)[0]
        assert (handle.wait() == group.size).all()
    ranks.shared_arrays(group)


def mismatch_before_native(group):
    """The ranks differ in a call that MPI itself would carry out: nobody may enter it."""
    x = np.zeros(3 if group.rank == 1 else 2)
    group.all_reduce(x, algorithm="native")


def lost(world):
    """Rank 1 raises; what the others hear, and that they go on. Then all are lost."""
    transport = MpiTransport(reports=True)
    group = Group(transport)
    try:
        r1, r2, send, to_other, reduce, barrier, any_, poll, other, total, _ = [
            *losing.in_every_way(group, "raise")[-11:]
        ]
    except ValueError as error:
        assert group.rank == 1 and job.lose(transport, error) == 0
    else:
        for error in (r1, r2, send, reduce, barrier, any_):
            assert error is None or error[:3] == (1, 0, False), error
        assert "rank 1 raised ValueError: it has had enough" in r1[3] and r2 and reduce and barrier
        assert to_other is None and poll and other == [1.0] and (total == 4).all()
        group.close()
    again = MpiTransport(reports=True)
    assert job.lose(again, ValueError(f"so has rank {world.rank}")) == 1


def fail(group, how):
    if how == "deadlock":
        ranks.deadlock(group, "receive first")
    elif how == "late":
        ranks.late(group, 60.0)
    elif how == "left out":
        ranks.left_out(group, "last call left out")
    elif how == "behind a handle":
        ranks.asynchronous_mismatch(group, wait=False)
    elif how == "native":
        mismatch_before_native(group)
    elif how == "others compute":
        group.barrier()
        if group.rank == 1:
            raise ValueError("rank 1 has had enough")
        time.sleep(60)
    else:
        ranks.fail(group, how)


if __name__ == "__main__":
    world = minipar.init()
    globals()[sys.argv[1]](world, *sys.argv[2:])
    if world.rank == 0:
        print("done", flush=True)
