"""`minipar verify`: every way of sharing the work against its definition, by number.

    strategy      layout   backend   ranks    max error   allowed
    zero2         dp=3     local         3      1.1e-15     1e-10    ok

A row is a strategy on so many ranks of a backend. It trains a small net for some steps in float64
(testing/training.py), and is compared with what it should give: an exact form with one rank that
has the whole batch, an inexact one with one process that holds all replicas (testing/replicas.py).
Servers come on top of the ranks: ps=2+1 is a row of 3, two of which train (testing/servers.py).
Compared are weights, gradients, the norm of the gradient in each step, and the optimizer's state.

After them come layouts (verify_layouts.py): two or three ways put together, by `minipar train`'s
own loop, wherever such a combination is not refused; and whether a trace of a run is complete
(verify_traces.py).

A row that cannot even run has an `error`, and the other rows come all the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

from minipar import verify_layouts, verify_traces
from minipar.comm.group import Group
from minipar.config import Config
from minipar.errors import UsageError, said
from minipar.nn import Module
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.central import Central
from minipar.parallel.compress import Compressed, Compressor, Float16, Int8, PowerSGD, TopK
from minipar.parallel.data import DataParallel
from minipar.parallel.local_sgd import LocalSGD
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.parameter_server import ASYNC, SYNC, ParameterServer, Rule, ssp
from minipar.parallel.pipeline_strategy import PipelineParallel
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.parallel.strategy import MakeOptimizer, Strategy
from minipar.parallel.tensor_strategy import TensorParallel
from minipar.testing import generation, mixed, pipelines, replicas, servers, tensor
from minipar.testing.strategies import TOLERANCE, Difference, Serial, difference, one_rank
from minipar.testing.training import Case

BACKENDS = ("local", "process")
RANKS = (1, 2, 3, 4)
QUICK_RANKS = (2,)
ALL_AXES = "dp+1f1b+tp"  # 2 · 2 · 2 ranks
SMALL_BUCKET = 256  # bytes, so that the net fills several


class Held(NamedTuple):
    """How a strategy is built, and the serial definition that it is held against."""

    make: Any  # a MakeStrategy that a process can import
    serial: Serial = one_rank
    synchronised: bool = True  # batch norm over the rows of all ranks
    axis: str = "dp"  # of the mesh, along which the ranks stand; "ps": with servers beside them
    measure: Callable[[int, str], Difference] | None = None  # what is not data parallel has its own
    tolerance: float = TOLERANCE

    def layout(self, p: int) -> tuple[str, int]:
        """What p ranks that train are called, and how many ranks there are in all."""
        beside = servers.servers_for(p) if self.axis == "ps" else 0
        return f"{self.axis}={p}+{beside}" if beside else f"{self.axis}={p}", p + beside

    def difference(self, p: int, backend: str) -> Difference:
        """How far p ranks of a backend are from the definition."""
        if self.measure is not None:
            return self.measure(p, backend)
        return difference(self.make, self.serial, self.synchronised, p, backend)


def _compressed(
    kind: Callable[..., Compressor],
    setting: Sequence[Any],
    model: Module,
    group: Group,
    make_optimizer: MakeOptimizer,
) -> Strategy:
    return Compressed(model, group, make_optimizer, kind(*setting))


def _held_compressed(kind: Callable[..., Compressor], define: Any, *setting: Any) -> Held:
    """A compressor, and its definition, which takes the same setting."""

    def serial(case: Case, p: int) -> list[dict[str, Any]]:
        return replicas.compressed(case, p, define(*setting))

    return Held(partial(_compressed, kind, setting), serial)


def _held_local(every: int | None) -> Held:
    return Held(
        partial(LocalSGD, every=every), partial(replicas.local_sgd, every=every), synchronised=False
    )


def _held_pipeline(schedule: str) -> Held:
    measure = partial(pipelines.difference, schedule=schedule)
    return Held(PipelineParallel, axis="pp", measure=measure)


def _held_writing(axis: str) -> Held:
    return Held(None, axis=axis, measure=partial(generation.difference, axis=axis))


def _held_mixed(dtype: str) -> Held:
    measure = partial(mixed.difference, dtype=dtype)
    return Held(BucketedDataParallel, measure=measure, tolerance=mixed.TOLERANCES[dtype])


def _held_servers(rule: Rule) -> Held:
    measure = partial(servers.difference, rule=rule)
    return Held(ParameterServer, axis="ps", measure=measure)


STRATEGIES = MappingProxyType(
    {
        "dp": Held(DataParallel),
        "bucketed": Held(partial(BucketedDataParallel, bucket_bytes=SMALL_BUCKET)),
        "overlapped": Held(partial(OverlappedDataParallel, bucket_bytes=SMALL_BUCKET)),
        "zero1": Held(Zero1),
        "zero2": Held(partial(Zero2, bucket_bytes=SMALL_BUCKET)),
        "zero3": Held(Zero3),
        "central": Held(Central),
        "local-sgd": _held_local(4),
        "one-shot": _held_local(None),
        "float16": _held_compressed(Float16, replicas.float16),
        "int8": _held_compressed(Int8, replicas.int8, 32),
        "top-k": _held_compressed(TopK, replicas.top_k, 0.1),
        "powersgd": _held_compressed(PowerSGD, replicas.powersgd, 2),
        **{f"mixed-{dtype}": _held_mixed(dtype) for dtype in mixed.dtypes()},
        "tp": Held(TensorParallel, axis="tp", measure=tensor.difference),
        "sequence": Held(
            TensorParallel, axis="tp", measure=partial(tensor.difference, sequence=True)
        ),
        "ps-sync": _held_servers(SYNC),
        "ps-async": _held_servers(ASYNC),
        "ps-ssp": _held_servers(ssp(1)),
        "naive": _held_pipeline("naive"),
        "gpipe": _held_pipeline("gpipe"),
        "1f1b": _held_pipeline("1f1b"),
        "interleaved": _held_pipeline("interleaved"),
        "zero-bubble": _held_pipeline("zero-bubble"),
        "generate-tp": _held_writing("tp"),
        "generate-pp": _held_writing("pp"),
    }
)


def verify(
    strategies: Iterable[str] | Mapping[str, Held] | None = None,
    backends: Sequence[str] = BACKENDS,
    ranks: Sequence[int] | None = None,
    quick: bool = False,
) -> Iterator[dict[str, Any]]:
    """A row for each strategy, backend and number of ranks, then for each layout and backend, and
    for tracing on each backend.

    strategies: names in STRATEGIES, of layouts (zero1+tp), or "trace"; or a mapping from names of
                your own; None: all.
    ranks:      that train, and of layouts and traces how many they have. None: 1, 2, 3 and 4, and
                any layout.
    quick:      2 ranks; on `local` pairs of ways, and dp, pp and tp together.
    Each row has strategy, layout, backend, ranks, max_error, tolerance, ok; where (what differs
    most), error (None, or what was raised) and seconds. max_error is None if there is no number:
    it did not run, or something is missing or not a number.
    Raises: UsageError for a name that there is not, before the first row.
    """
    if strategies is not None and not isinstance(strategies, Mapping):
        strategies = list(strategies)
    chosen, together = _chosen(strategies, quick)
    numbers = ranks or (QUICK_RANKS if quick else RANKS)
    if ranks:
        together = {name: c for name, c in together.items() if c.ranks in ranks}
    return chain(
        (
            _row(name, held, backend, p)
            for backend in backends
            for p in numbers
            for name, held in chosen.items()
        ),
        *(verify_layouts.rows(together, b) for b in _worth_it(backends, quick, strategies)),
        verify_traces.rows(
            _worth_it(backends, quick, strategies) if _traced(strategies, ranks) else ()
        ),
    )


def _traced(strategies: Any, ranks: Sequence[int] | None) -> bool:
    if isinstance(strategies, Mapping) or (ranks and verify_traces.RANKS not in ranks):
        return False
    return strategies is None or verify_traces.NAME in strategies


def _worth_it(backends: Sequence[str], quick: bool, asked: Any) -> Sequence[str]:
    """On which backends layouts are tried; quickly, on threads alone, unless they are asked for."""
    return ["local"] if quick and asked is None and "local" in backends else backends


def _chosen(
    strategies: Iterable[str] | Mapping[str, Held] | None, quick: bool
) -> tuple[Mapping[str, Held], Mapping[str, Config]]:
    """Those of the strategies, and those of the layouts."""
    if isinstance(strategies, Mapping):
        return strategies, {}
    together = verify_layouts.layouts()
    if strategies is None and quick:
        together = {n: c for n, c in together.items() if n.count("+") == 1 or n == ALL_AXES}
    if strategies is None:
        return STRATEGIES, together
    names = list(strategies)
    for name in names:
        if name not in (*STRATEGIES, *together, verify_traces.NAME):
            raise UsageError(
                f"there is no strategy {name!r}; there are {', '.join(STRATEGIES)}, "
                f"{verify_traces.NAME}; and layouts of two or three, such as zero1+1f1b+tp, where "
                "they can be."
            )
    return (
        {name: STRATEGIES[name] for name in names if name in STRATEGIES},
        {name: together[name] for name in names if name in together},
    )


def _row(name: str, held: Held, backend: str, p: int) -> dict[str, Any]:
    begun, error = time.perf_counter(), None
    max_error, where = math.inf, ""
    try:
        max_error, where = held.difference(p, backend)
    except Exception as failed:  # of any kind: the rows that follow count as well
        error = f"{type(failed).__name__}: {said(failed)}"
    layout, ranks = held.layout(p)
    return {
        "strategy": name,
        "layout": layout,
        "backend": backend,
        "ranks": ranks,
        "max_error": max_error if max_error < math.inf else None,
        "tolerance": held.tolerance,
        "ok": max_error <= held.tolerance,
        "where": where,
        "error": error,
        "seconds": time.perf_counter() - begun,
    }


def table(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The rows as the lines of a table, each as soon as its row is there; then how many are ok."""
    yield f"{'strategy':27s}{'layout':16s}{'backend':10s}{'ranks':>5s}{'max error':>12s}  allowed"
    count = right = 0
    worst = 0.0
    for row in rows:
        count, right = count + 1, right + row["ok"]
        found = "" if row["max_error"] is None else f"{row['max_error']:.1e}"
        start = f"{row['strategy']:27s}{row['layout']:16s}{row['backend']:10s}{row['ranks']:5d}"
        why = "ok" if row["ok"] else f"WRONG  {row['error'] or row['where']}"
        yield f"{start}{found:>12s}{row['tolerance']:9.0e}  {why}"
        worst = max(worst, row["max_error"] or 0.0)
    yield f"{right} of {count} are what they should be; the largest error is {worst:.1e}"
