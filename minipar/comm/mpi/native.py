"""MPI's own collectives, under the name algorithm="native".

The same calls, carried out by the MPI library and not by us: to measure against, and for networks
that know more than send and receive. The ranks meet in a barrier of checked messages first
(`agreed`).

Whatever is only moved is moved as unsigned integers of its size, since MPI knows no bfloat16.

Letters: p ranks, r own rank, c a piece of an array, as in `wiring`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from minipar.array import Array, describe
from minipar.comm.agreed import Algorithm, Native
from minipar.comm.frame import HEADER_BYTES, Call, dtype_of, header_for, pack, unpack
from minipar.errors import UsageError

MAX_ELEMENTS = (1 << 31) - 1  # MPI counts in 32 bits
BUILT_IN = MappingProxyType({"add": "SUM", "multiply": "PROD", "minimum": "MIN", "maximum": "MAX"})


# -- the collectives: comm is MPI's communicator of the group -----------------------------------


def native_barrier(comm: Any, how: Native) -> None:
    comm.Barrier()


def native_broadcast(comm: Any, how: Native, buf: Array) -> None:
    comm.Bcast(_movable(buf), how.root)


def native_reduce(comm: Any, how: Native, buf: Array) -> None:
    from mpi4py import MPI

    with _operation(how.combine, buf) as (op, typed):
        if comm.rank == how.root:
            comm.Reduce(MPI.IN_PLACE, typed, op, how.root)
        else:
            comm.Reduce(typed, None, op, how.root)


def native_all_reduce(comm: Any, how: Native, buf: Array) -> None:
    from mpi4py import MPI

    with _operation(how.combine, buf) as (op, typed):
        comm.Allreduce(MPI.IN_PLACE, typed, op)


def native_reduce_scatter(comm: Any, how: Native, buf: Array, cuts: Sequence[int]) -> None:
    counts, starts = _layout(comm, 0, buf, cuts)
    with _operation(how.combine, buf) as (op, typed):
        mine = np.empty(counts[comm.rank], typed.dtype)
        comm.Reduce_scatter(typed, mine, counts, op)
        typed[starts[comm.rank] :][: mine.size] = mine


def native_all_gather(comm: Any, how: Native, buf: Array, cuts: Sequence[int]) -> None:
    from mpi4py import MPI

    comm.Allgatherv(MPI.IN_PLACE, [_movable(buf), _layout(comm, 0, buf, cuts)])


def native_gather(comm: Any, how: Native, buf: Array, cuts: Sequence[int]) -> None:
    from mpi4py import MPI

    flat, (counts, starts) = _movable(buf), _layout(comm, how.root, buf, cuts)
    if comm.rank == how.root:
        comm.Gatherv(MPI.IN_PLACE, [flat, (counts, starts)], how.root)
    else:
        comm.Gatherv(flat[starts[comm.rank] :][: counts[comm.rank]], None, how.root)


def native_scatter(comm: Any, how: Native, buf: Array | None, cuts: Sequence[int]) -> Array:
    """Only the root knows how large the pieces are, so a header goes first."""
    head = np.empty(HEADER_BYTES, np.uint8)
    if buf is not None:
        piece = header_for(Call(0, 0, "scatter", "", ""), buf[cuts[0] : cuts[1]])
        head[:] = np.frombuffer(pack(piece), np.uint8)
    comm.Bcast(head, how.root)
    header = unpack(head.tobytes())
    mine = np.empty(header.shape, dtype_of(header.dtype))
    whole = None
    if buf is not None:
        whole = [_movable(np.ascontiguousarray(buf)), _layout(comm, how.root, buf, cuts)]
    comm.Scatterv(whole, _movable(mine), how.root)
    return mine


def native_all_to_all(comm: Any, how: Native, rows: Array, received: Array) -> None:
    comm.Alltoall(_movable(np.ascontiguousarray(rows)), _movable(received))


NATIVE: Mapping[str, Algorithm] = MappingProxyType(
    {
        "barrier": native_barrier,
        "broadcast": native_broadcast,
        "reduce": native_reduce,
        "all_reduce": native_all_reduce,
        "gather": native_gather,
        "scatter": native_scatter,
        "all_gather": native_all_gather,
        "reduce_scatter": native_reduce_scatter,
        "all_to_all": native_all_to_all,
    }
)


# -- arrays as MPI takes them ---------------------------------------------------------------------


def _movable(array: Array) -> Array:
    """The memory of an array in C order, flat, as numbers of a size that MPI knows."""
    if array.size > MAX_ELEMENTS:
        raise UsageError(
            f"native: {describe(array)} has more than 2^31-1 elements, which MPI cannot count; "
            "split it, or leave out algorithm="
        )
    flat = array.reshape(-1)
    return flat if flat.dtype.kind == "c" else flat.view(f"u{flat.itemsize}")


def _layout(comm: Any, root: int, buf: Array, cuts: Sequence[int]) -> tuple[list[int], list[int]]:
    """How many elements of buf each rank of comm has, and where they start.

    The pieces stand in the order in which the root sees the ranks: its own first.
    """
    width = buf.size // max(1, len(buf))
    places = [(rank - root) % comm.size for rank in range(comm.size)]
    return (
        [(cuts[c + 1] - cuts[c]) * width for c in places],
        [cuts[c] * width for c in places],
    )


@contextmanager
def _operation(combine: Callable[..., Array], buf: Array) -> Iterator[tuple[Any, Array]]:
    """MPI's operation for `combine`, and buf as numbers that it takes.

    The min and max of floats go through NumPy's function: what MPI makes of nan is not defined, and
    it knows no float16.
    """
    from mpi4py import MPI

    name, movable = combine.__name__, _movable(buf)
    if name in ("add", "multiply") or buf.dtype.kind in "iu":
        yield getattr(MPI, BUILT_IN[name]), buf.reshape(-1)
    elif buf.dtype.kind == "b":
        yield getattr(MPI, BUILT_IN[name]), movable
    else:

        def both(a: Any, b: Any, _: Any) -> None:
            into = np.frombuffer(b, buf.dtype)
            combine(np.frombuffer(a, buf.dtype), into, out=into)

        op = MPI.Op.Create(both, commute=True)
        yield op, movable
        op.Free()
