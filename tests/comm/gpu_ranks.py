"""What ranks do in the tests with arrays of a GPU, on any backend; cupy may be its stand-in."""

import os
import signal
import sys
import time

import numpy as np

from minipar.errors import CommError, UsageError
from minipar.testing import check_transport
from minipar.testing.devices import OnDevice
from minipar.testing.transports import PROMISES

DTYPES = ("bool", "uint8", "int8", "int32", "uint32", "int64", "uint64", "float16", "float32",
          "float64", "complex64", "int16", "bfloat16")  # fmt: skip
OPS = ("sum", "mean", "prod", "min", "max")


def stand_in():
    """In a process of its own: the stand-in takes the place of CuPy."""
    from tests import strict_cupy

    sys.modules["cupy"] = strict_cupy.module()


def bfloat16(name):
    if name != "bfloat16":
        return np.dtype(name)
    from ml_dtypes import bfloat16 as dtype

    return np.dtype(dtype)


def conformance(group, promises=PROMISES):
    """Every promise of a transport, with arrays of the GPU."""
    import cupy

    check_transport(OnDevice(group, cupy), promises)
    return True


def conformance_of_two_ways(group):
    """The same in host memory, then on the GPU, in one job."""
    check_transport(group)
    return conformance(group)


def process_conformance(group):
    stand_in()
    return conformance_of_two_ways(group)


def part_of(rank, n, dtype):
    """Small numbers: all totals are exact, in any order."""
    return ((np.arange(n) % 3) + (np.arange(n) + rank) % 2).astype(dtype)


def reduced(group, dtypes=DTYPES, sizes=(0, 1, 7, 1000), algorithms=(None, "ring", "tree")):
    """all_reduce, reduce and reduce_scatter of all dtypes and ops are NumPy's; how many were."""
    import cupy

    p, r, count = group.size, group.rank, 0
    for name in dtypes:
        dtype = bfloat16(name)
        for op in OPS:
            for n in sizes:
                parts = np.stack([part_of(q, n, dtype) for q in range(p)])
                try:
                    expected = total(parts, op)
                except UsageError:
                    continue
                x = cupy.asarray(parts[r])
                for algorithm in algorithms:
                    alike(group.all_reduce(x, op, algorithm=algorithm), expected)
                    mine = np.array_split(expected, p)[r]
                    if algorithm != "tree":
                        alike(group.reduce_scatter(x, op, algorithm), mine)
                    root = group.reduce(x, p - 1, op, algorithm)
                    assert (root is None) == (r != p - 1)
                    if root is not None:
                        alike(root, expected)
                    count += 1
                assert (x.get() == parts[r]).all()
    return count


def total(parts, op):
    """By NumPy, in a wide dtype.  Raises: UsageError where op is not defined for the dtype."""
    kind = "f" if parts.dtype.name == "bfloat16" else parts.dtype.kind
    allowed = {"mean": "fc", "min": "biuf", "max": "biuf"}.get(op, "iufc")
    if kind not in allowed:
        raise UsageError(f"no {op} of {parts.dtype}")
    wide = parts.astype("complex128" if kind == "c" else "float64" if kind == "f" else parts.dtype)
    function = {"sum": np.sum, "mean": np.mean, "prod": np.prod, "min": np.min, "max": np.max}[op]
    return function(wide, axis=0).astype(parts.dtype)


def alike(got, expected):
    """On the GPU, of the same dtype and shape; equal, but for the last bits of a mean."""
    assert not isinstance(got, np.ndarray)
    got = got.get()
    assert got.dtype == expected.dtype and got.shape == expected.shape, (got.dtype, got.shape)
    wide = "complex128"
    assert np.allclose(got.astype(wide), expected.astype(wide), rtol=1e-2 if got.itemsize == 2
                       else 1e-6), (got, expected)  # fmt: skip


def moved(group, dtypes=DTYPES, sizes=(0, 3, 1000), algorithms=(None, "ring")):
    """Whatever only moves arrays brings them where they belong."""
    import cupy

    p, r = group.size, group.rank
    for name in dtypes:
        for n in sizes:
            parts = np.stack([part_of(q, p * n, bfloat16(name)) for q in range(p)])
            rows = parts.reshape(p, p, n)
            x = cupy.asarray(rows[r])
            for algorithm in algorithms:
                ring = algorithm if algorithm != "ring" else None
                alike(group.all_gather(x, algorithm), rows)
                alike(group.all_to_all(x, ring), rows[:, r])
                for root in {0, p - 1}:
                    alike(group.broadcast(x, root, algorithm), rows[root])
                    alike(group.scatter(x if r == root else None, root, ring), rows[root, r])
                    stack = group.gather(x, root, ring)
                    assert (stack is None) == (r != root)
                    if stack is not None:
                        alike(stack, rows)
    strided = cupy.asarray(np.arange(24.0).reshape(4, 6))[:, ::2].T
    alike(group.sendrecv(strided, (r + 1) % p, (r - 1) % p), strided.get())
    return True


def nan_spreads(group):
    """min and max are nan where one rank has nan; not elsewhere."""
    import cupy

    for name in ("float16", "float32", "float64", "bfloat16"):
        x = np.array([1.0, -2.0, -3.0, np.inf, -np.inf]).astype(bfloat16(name))
        if group.rank == group.size - 1:
            x[1] = np.nan
        for op in ("min", "max"):
            with np.errstate(invalid="ignore"):  # the stand-in's NumPy would say so
                got = group.all_reduce(cupy.asarray(x), op).get().astype("float64")
            assert np.isnan(got[1]) and (got[[0, 2, 3, 4]] == x[[0, 2, 3, 4]].astype("f8")).all()
    return True


def asynchronous(group):
    """Handles, several under way, out=, beside messages; in the order of the calls."""
    import cupy

    p, r = group.size, group.rank
    xs = [cupy.asarray(np.full(n, 2.0**r)) for n in (1, 1000, 100_000)]
    handles = [group.all_reduce(x, out=x, async_op=True) for x in xs]
    handles.append(group.all_gather(cupy.asarray(np.full(3, float(r))), async_op=True))
    handles.append(group.all_reduce(cupy.asarray(np.ones(5, "f2")), "mean", async_op=True))
    handles.append(group.all_reduce(cupy.asarray(np.ones(5)), algorithm="ring", async_op=True))
    handles.append(group.reduce_scatter(cupy.asarray(np.ones(2 * p + 1)), async_op=True))
    y = cupy.asarray(np.full(10, float(r)))
    assert (group.sendrecv(y, (r + 1) % p, (r - 1) % p).get() == (r - 1) % p).all()
    for x, handle in zip(xs, handles):
        assert handle.wait() is x and (x.get() == 2.0**p - 1).all()
    assert (handles[3].wait().get() == np.arange(p)[:, None]).all()
    assert (handles[4].wait().get() == 1).all()
    assert (handles[5].wait().get() == p).all()
    assert (handles[6].wait().get() == p).all()
    handle = group.all_reduce(xs[0], async_op=True)
    while not handle.done():
        time.sleep(0.001)
    handle.wait()
    left_alone = [group.all_reduce(x, async_op=True) for x in xs]  # close waits for them
    del left_alone
    return True


def crossing(group):
    """A message overtakes a collective that was begun before it; 2 ranks."""
    import cupy

    x = cupy.asarray(np.ones(4))
    if group.rank == 0:
        handle = group.all_reduce(x, async_op=True)
        group.send(3 * x, 1)
    else:
        assert (group.recv(0).get() == 3).all()
        handle = group.all_reduce(x, async_op=True)
    assert (handle.wait().get() == 2).all()
    return True


def groups(group):
    """Groups of fewer ranks, used in one order."""
    import cupy

    p, r = group.size, group.rank
    half, last = group.split(r % 2, key=-r), group.subgroup([p - 1])
    for _ in range(3):
        for g in (group, half, last):
            if g is None:
                continue
            x = cupy.asarray(np.full(4, 2.0**r))
            for algorithm in (None, "ring"):
                expected = sum(2.0**q for q in g.world_ranks)
                assert (g.all_reduce(x, algorithm=algorithm).get() == expected).all()
            root = g.broadcast(x, root=g.size - 1).get()
            assert (root == 2.0 ** g.world_ranks[-1]).all()
    return True


def by_nccl_and_by_hand(group):
    """NCCL's own and the hand-written algorithms, of integers: the same bits."""
    import cupy

    x = cupy.asarray(np.arange(10_007) * (group.rank + 1))
    native = group.all_reduce(x, algorithm="native").get()
    assert native.tobytes() == group.all_reduce(x).get().tobytes()
    for algorithm in ("ring", "tree", "halving_doubling", "naive", "direct", "flat"):
        assert group.all_reduce(x, algorithm=algorithm).get().tobytes() == native.tobytes()
    return int(native[-1])


def received_into(group):
    """recv(out=) and what does not fit; on a GPU and in host memory."""
    import cupy

    p, r = group.size, group.rank
    left, right = (r - 1) % p, (r + 1) % p
    out, x = cupy.zeros(5), cupy.asarray(np.full(5, float(r)))
    send = group.isend(x, right)
    assert group.recv(left, out=out) is out and (out.get() == left).all()
    send.wait()
    group.send(x, right)
    try:
        group.recv(left, out=np.zeros(5))
    except CommError as error:
        return str(error)
    raise AssertionError("an array of the GPU went into one of host memory")


# -- ways to fail -----------------------------------------------------------------------------


def fail(group, how):
    """Rank 1 fails in the given way while the others are in calls with arrays of the GPU."""
    import cupy

    x = cupy.asarray(np.ones(1000, np.float32))
    group.all_reduce(x).get()
    group.sendrecv(x, (group.rank + 1) % group.size, (group.rank - 1) % group.size).get()
    if group.rank == 1:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "kill after the agreement":
            group.barrier()
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "raise":
            raise ValueError("rank 1 has had enough")
        if how == "return":
            return
        if how == "shape":
            x = x[:3]
        if how == "host":
            x = x.get()
        if how == "late":
            time.sleep(60)
    elif how == "kill after the agreement":
        group.barrier()
    total = group.all_reduce(x)
    for _ in range(100):
        total = group.all_reduce(x)
        total.get()


def alone(group):
    """Nothing is compared: rank 0 is in a collective of NCCL's, to which rank 1 does not come."""
    import cupy

    x = cupy.asarray(np.ones(1000, np.float32))
    group.all_reduce(x).get()
    if group.rank == 1:
        time.sleep(60)
    group.all_reduce(x).get()


# -- on the process backend, where the stand-in has to be put into each process ------------------


def by_process(group, name):
    stand_in()
    return globals()[name](group)


def some_of_all(group):
    """A little of everything above; the numbers of reductions that were compared."""
    few = {"sizes": (0, 5), "algorithms": (None,)}
    moved(group, ("bool", "float32", "complex64"), **few)
    nan_spreads(group)
    asynchronous(group)
    groups(group)
    received_into(group)
    if group.size == 2:
        crossing(group)
    return reduced(group, ("bool", "float32", "float16", "int16"), **few)


def one_on_the_host(group):
    import cupy

    x = np.ones(3)
    group.all_reduce(x if group.rank == 1 else cupy.asarray(x))
