"""NCCL's own collectives, under the name algorithm="native": the default for arrays of a GPU.

They are put into the communication stream, and nobody waits for them here. NCCL has neither gather
nor all-to-all: both are sends and receives that begin together. (Nor has it scatter: there only the
root knows how large the pieces are, so a tree of checked messages does it.)

The min and max of floats are nan where any rank has nan, as in NumPy. NCCL does not promise that:
a second collective tells where.

Letters: r own rank, c a piece of an array, as in `wiring`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from minipar.array import Array, array_module
from minipar.comm.agreed import Algorithm, Native
from minipar.comm.nccl.library import OPS, UINT8, as_numbers, function_name

# dtype: the bits of inf, and those of a nan
BITS = MappingProxyType(
    {
        "float16": (0x7C00, 0x7E00),
        "bfloat16": (0x7F80, 0x7FC0),
        "float32": (0x7F80_0000, 0x7FC0_0000),
        "float64": (0x7FF0_0000_0000_0000, 0x7FF8_0000_0000_0000),
    }
)


def unless_empty(run: Algorithm) -> Algorithm:
    """run(comm, how, array, ...), if there is anything in the array."""

    def native(comm: Any, how: Native, *arrays: Any) -> None:
        if arrays[0].size:
            run(comm, how, *arrays)

    return native


@unless_empty
def native_broadcast(comm: Any, how: Native, buf: Array) -> None:
    comm.enqueue("broadcast", _at(buf), _at(buf), buf.nbytes, UINT8, how.root)


@unless_empty
def native_reduce(comm: Any, how: Native, buf: Array) -> None:
    def step(send: Array, recv: Array, op: int) -> None:
        comm.enqueue("reduce", _at(send), _at(recv), *as_numbers(send), op, how.root)

    _combined(how, buf, buf, step)


@unless_empty
def native_all_reduce(comm: Any, how: Native, buf: Array) -> None:
    def step(send: Array, recv: Array, op: int) -> None:
        comm.enqueue("allReduce", _at(send), _at(recv), *as_numbers(send), op)

    _combined(how, buf, buf, step)


@unless_empty
def native_reduce_scatter(
    comm: Any, how: Native, buf: Array, cuts: Sequence[int], out: Array
) -> None:
    """The total of piece r to out; buf stays as it was.  Pieces of different length: reduces."""

    def step(send: Array, recv: Array, op: int) -> None:
        parts = [send[cuts[c] : cuts[c + 1]] for c in range(comm.size)]
        if len({part.size for part in parts}) == 1:
            comm.enqueue("reduceScatter", _at(send), _at(recv), *as_numbers(recv), op)
            return
        with comm.group():
            for root, part in _not_empty(parts):
                comm.enqueue("reduce", _at(part), _at(recv), *as_numbers(part), op, root)

    _combined(how, buf, out, step)


@unless_empty
def native_all_gather(comm: Any, how: Native, buf: Array, cuts: Sequence[int]) -> None:
    parts = [buf[cuts[c] : cuts[c + 1]] for c in range(comm.size)]
    if len({part.size for part in parts}) == 1:
        mine = parts[comm.rank]
        comm.enqueue("allGather", _at(mine), _at(buf), mine.nbytes, UINT8)
        return
    with comm.group():
        for root, part in _not_empty(parts):
            comm.enqueue("broadcast", _at(part), _at(part), part.nbytes, UINT8, root)


@unless_empty
def native_gather(comm: Any, how: Native, buf: Array, cuts: Sequence[int]) -> None:
    """Pieces stand in the order in which the root sees the ranks: its own first."""
    with comm.group():
        for c in range(1, comm.size):
            part, owner = buf[cuts[c] : cuts[c + 1]], (how.root + c) % comm.size
            if comm.rank == how.root:
                comm.enqueue("recv", _at(part), part.nbytes, UINT8, owner)
            elif comm.rank == owner:
                comm.enqueue("send", _at(part), part.nbytes, UINT8, how.root)


@unless_empty
def native_all_to_all(comm: Any, how: Native, rows: Array, received: Array) -> None:
    rows, n = array_module(rows).ascontiguousarray(rows), rows.nbytes // comm.size
    with comm.group():
        for i in range(comm.size):
            comm.enqueue("send", _at(rows) + i * n, n, UINT8, i)
            comm.enqueue("recv", _at(received) + i * n, n, UINT8, i)


NATIVE: Mapping[str, Algorithm] = MappingProxyType(
    {
        "broadcast": native_broadcast,
        "reduce": native_reduce,
        "all_reduce": native_all_reduce,
        "reduce_scatter": native_reduce_scatter,
        "all_gather": native_all_gather,
        "gather": native_gather,
        "all_to_all": native_all_to_all,
    }
)


# -- arrays as NCCL takes them --------------------------------------------------------------------


def _not_empty(parts: Sequence[Array]) -> list[tuple[int, Array]]:
    """The parts that have something in them, with their numbers."""
    return [(c, part) for c, part in enumerate(parts) if part.size]


def _at(x: Array) -> int:
    return int(x.data.ptr)


def _combined(
    how: Native, send: Array, recv: Array, step: Callable[[Array, Array, int], None]
) -> None:
    """step(send, recv, op) for the call's op; nan spreads."""
    name, xp = function_name(how.combine), array_module(send)
    if name in ("add", "multiply") or send.dtype.name not in BITS:
        step(send, recv, OPS[name])
        return
    inf, nan = BITS[send.dtype.name]
    word, magnitude = f"u{send.itemsize}", (1 << 8 * send.itemsize - 1) - 1
    mine = (send.view(word) & magnitude) > inf
    spread = mine if recv is send else xp.empty(recv.shape, bool)
    step(send, recv, OPS[name])
    step(mine, spread, OPS["maximum"])
    bits = recv.view(word)
    bits |= spread.astype(word) * nan
