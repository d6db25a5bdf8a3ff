"""Run ranks and get the trace of what they did, in one call; and say how long a model computes.

    results, trace = traced(work, 4, cluster=Cluster())      as minipar.run(work, 4, ...)
    show(draw_timeline(trace, 0, trace.end), "step")

In virtual time nothing takes time but what is declared, so a model of real layers would compute in
no time. `takes` declares it for them, without a change to the model:

    takes(model.layers, 1e-3, 2e-3)      forward  [1 ms][1 ms]      backward  [ 2 ms ][ 2 ms ]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from tempfile import TemporaryDirectory
from typing import Any

from minipar.array import Array
from minipar.comm.cluster import Cluster
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.comm.tracing import tracing
from minipar.comm.world import init
from minipar.nn.module import Module
from minipar.tensor import Tensor, record
from minipar.trace.trace_file import Trace, load

CALLS = ("__call__", "gelu")  # the ways to call a module: a column has gelu as a part of it


def traced(
    fn: Callable[..., Any], ranks: int, *, args: Sequence[Any] = (), cluster: Cluster | None = None
) -> tuple[list[Any], Trace]:
    """Call fn(group, *args) on every rank of `local`: what the ranks returned, and the trace.

    cluster: as in `minipar.run`; without one, time is that of this machine.
    Raises:  what `minipar.run` raises.
    """
    with TemporaryDirectory() as folder:

        def work(group: Group) -> Any:
            with tracing(group, folder):
                return fn(group, *args)

        return run(work, ranks, cluster=cluster), load(folder)


def takes(modules: Iterable[Module], forward_s: float, backward_s: float) -> None:
    """From now on each call of these modules takes forward_s of virtual time before it begins, and
    backward begins each of them by taking backward_s. Where time is measured, nothing changes.

    Each must return a tensor.  Keeps what the modules keep.
    """
    for module in modules:
        plain = type(module)
        calls = {
            name: _timed(getattr(call, "__wrapped__", call), forward_s, backward_s)
            for name in CALLS
            if (call := getattr(plain, name, None)) is not None
        }
        module.__class__ = type(plain.__name__, (plain,), calls)


def _timed(call: Callable[..., Tensor], forward_s: float, backward_s: float) -> Callable[..., Any]:
    @wraps(call)
    def timed(module: Module, *args: Any, **options: Any) -> Tensor:
        group = init()
        group.spend(forward_s)
        z = call(module, *args, **options)

        def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
            group.spend(backward_s)
            return (dz,)

        return record(z.data, (z,), vjp)

    return timed
