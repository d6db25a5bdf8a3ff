"""Hold a collective of your own against what it should do, on 1 to 9 ranks.

    def my_all_reduce(link, buf): ...                  # as in minipar/comm/collectives.py

    check_collective(my_all_reduce, "all_reduce", formula=cost.ring_all_reduce)

The result is computed from all inputs at once, with NumPy. Rank r contributes 16^r to a sum, so
that each hexadecimal digit of what came out says how often a rank's part is in it.

    0x0111   the parts of ranks 0, 1 and 2, each once          0x0201   rank 1's twice, no rank 2's

Letters: p ranks, r own rank, c a piece: piece c of a flat buf is buf[cuts[c]:cuts[c + 1]].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minipar.comm.group import Group
from minipar.comm.launch import run_threads
from minipar.comm.local import LocalWorld
from minipar.comm.transport import BUFFERED_BYTES
from minipar.comm.wiring import even_cuts, pieces
from minipar.cost import Cost
from minipar.errors import Deadlock, MiniparError, UsageError, said
from minipar.testing.clock import ClockLink

OPS = ("barrier", "broadcast", "reduce", "all_reduce", "gather", "scatter", "all_gather",
       "reduce_scatter", "all_to_all")  # fmt: skip
REDUCING = ("reduce", "all_reduce", "reduce_scatter")
COUNTED = 5040  # float64 numbers in a counted call; 1 to 10 ranks can cut halves of it evenly
UNTOUCHED = -7  # what is in memory that an algorithm has to fill


class WrongCollective(MiniparError, AssertionError):
    """A collective does not do what its name says."""


def check_collective(
    fn: Callable[..., Any],
    op: str,
    *,
    ranks: Iterable[int] = range(1, 10),
    dtypes: Sequence[str] = ("float64", "float32"),
    formula: Callable[..., Cost] | None = None,
) -> None:
    """Hold fn against op: results, the same bits everywhere, rendezvous, and what it costs.

    fn:      called on every rank as the algorithms of `comm.algorithms` are: fn(link, buf) for
             broadcast, reduce and all_reduce, fn(link, buf, cuts) for gather, scatter, all_gather
             and reduce_scatter, fn(link, rows, received) for all_to_all, fn(link) for barrier.
             The root is rank 0. Sizes: 0, 1, fewer than p, uneven, even.
    dtypes:  of the arrays, besides int64.
    formula: (p, n bytes) -> Cost of the longest chain, e.g. cost.ring_all_reduce; (p) of a barrier.
    Raises:  WrongCollective, which says with how many ranks, where, and what is wrong.
    """
    if op not in OPS:
        raise UsageError(f"there is no collective {op!r}; there are {', '.join(OPS)}")
    passed: list[int] = []
    for p in ranks:
        try:
            for n in (0, 1, p - 1, 4 * p):
                _compare(fn, op, p, _parts(op, p, n, 16), f"{_where(p, n)} of int64, ")
            _check_kinds(fn, op, p, 3 * p + 1, dtypes)
            if formula is not None:
                _check_cost(fn, op, p, formula)
        except WrongCollective as error:
            before = f"\n(It is right with {', '.join(map(str, passed))} ranks.)" if passed else ""
            raise WrongCollective(f"{error}{before}") from error.__cause__
        passed.append(p)


def measured_cost(fn: Callable[..., Any], op: str, p: int, n: int = COUNTED) -> Cost:
    """What fn costs on its longest chain, with p ranks and n float64 numbers in the whole array."""
    ends = _run(fn, op, p, [_arguments(op, r, p, np.zeros((p, n))) for r in range(p)])
    messages, sent, added = np.max([clock for clock, _ in ends], axis=0)
    return Cost(int(messages), float(sent), float(added))


# -- what it is called with, and what must come out -------------------------------------------


def _arguments(op: str, r: int, p: int, xs: np.ndarray) -> list[Any]:
    """What rank r passes after the link.  xs: [p, n], the flat arrays of all ranks."""
    x = xs[r].copy()
    cuts = even_cuts(len(x), p)
    if op == "barrier":
        return []
    if op == "all_to_all":
        rows = x[: len(x) // p * p].reshape(p, -1)
        return [rows, np.full_like(rows, UNTOUCHED)]
    if (op == "broadcast" and r) or op in ("gather", "all_gather"):  # to be filled
        x[...] = UNTOUCHED
        mine = slice(cuts[r], cuts[r + 1]) if op != "broadcast" else slice(0)
        x[mine] = xs[r][mine]
    if op in ("broadcast", "reduce", "all_reduce"):
        return [x]
    return [None if op == "scatter" and r else x, cuts]


def _result(op: str, r: int, p: int, arguments: list[Any], returned: Any) -> Any:
    """What rank r has in the end; None if nothing is asked of it."""
    if op == "barrier" or (op in ("reduce", "gather") and r):
        return None
    if op == "scatter":
        return returned
    if op == "reduce_scatter":
        return pieces(arguments[0], arguments[1])[r]
    return arguments[-1] if op == "all_to_all" else arguments[0]


def _expected(op: str, r: int, p: int, xs: np.ndarray, combine: np.ufunc) -> Any:
    """The same, by NumPy from the arrays of all ranks."""
    cuts = even_cuts(xs.shape[1], p)
    if op in REDUCING:
        total = combine.reduce(xs, axis=0)
        return pieces(total, cuts)[r] if op == "reduce_scatter" else total
    if op in ("broadcast", "scatter"):
        return xs[0] if op == "broadcast" else pieces(xs[0], cuts)[r]
    if op == "all_to_all":
        rows = xs[:, : xs.shape[1] // p * p].reshape(p, p, -1)
        return rows[:, r]
    return np.concatenate([pieces(xs[q], cuts)[q] for q in range(p)])


# -- running and comparing --------------------------------------------------------------------


def _run(
    fn: Callable[..., Any],
    op: str,
    p: int,
    arguments: list[list[Any]],
    combine: np.ufunc = np.add,
    buffer_bytes: int = BUFFERED_BYTES,
) -> list[tuple[np.ndarray, Any]]:
    """For each rank its clock and its result.  Raises: what fn raises, Deadlock, CallMismatch."""

    entered: list[int] = []

    def work(group: Group) -> tuple[np.ndarray, Any]:
        link, mine = ClockLink(group, combine), arguments[group.rank]
        entered.append(group.rank)
        returned = fn(link, *mine)
        if op == "barrier" and len(entered) < p:
            raise WrongCollective(f"rank {group.rank} left before all had entered")
        group.barrier()
        if group.poll():
            raise WrongCollective(f"rank {group.rank} was sent a message that it never received")
        return link.time, _result(op, group.rank, p, mine, returned)

    results, failed = run_threads(work, p, world=LocalWorld(p, buffer_bytes))
    if failed is not None:
        raise failed[1]
    return results


def _check_kinds(fn: Callable[..., Any], op: str, p: int, n: int, dtypes: Sequence[str]) -> None:
    """Other dtypes, another op than sum, rounding, and a world in which sends wait."""
    where, exact = _where(p, n), _parts(op, p, n, 16)
    _compare(fn, op, p, exact, f"{where} of int64, ")
    for dtype in dtypes:
        _compare(fn, op, p, _parts(op, p, n, 2).astype(dtype), f"{where} of {dtype}, ")
    if op in REDUCING:
        xs = np.random.default_rng(p * 100 + n).integers(-99, 99, (p, n))
        _compare(fn, op, p, xs, f"{where} and max instead of sum (use link.add), ", np.maximum)
        _compare(fn, op, p, xs.astype("float32") / 7, f"{where} that get rounded, ", within=1e-4)
    _compare(fn, op, p, exact, f"{where}, if a send waits for its receive, ", buffer_bytes=0)


def _parts(op: str, p: int, n: int, base: int) -> np.ndarray:
    """[p, n] int64: base^r on rank r to be added up, else numbers that occur once."""
    if op in REDUCING:
        return np.repeat(base ** np.arange(p), n).reshape(p, n)
    return np.arange(p * n).reshape(p, n)


def _compare(
    fn: Callable[..., Any],
    op: str,
    p: int,
    xs: np.ndarray,
    where: str,
    combine: np.ufunc = np.add,
    buffer_bytes: int = BUFFERED_BYTES,
    within: float = 0,
) -> None:
    """Run fn on the arrays xs, and compare.  where: how a message about it begins."""
    arguments = [_arguments(op, r, p, xs) for r in range(p)]
    try:
        ends = _run(fn, op, p, arguments, combine, buffer_bytes)
    except Deadlock as error:
        raise WrongCollective(f"{where}the ranks wait for each other: {said(error)}") from error
    except Exception as error:
        raise WrongCollective(f"{where}{type(error).__name__}: {said(error)}") from error
    for r, (_, got) in enumerate(ends):
        if op == "barrier" or (op in ("reduce", "gather") and r):
            continue
        wanted = _expected(op, r, p, xs, combine)
        if not isinstance(got, np.ndarray) or got.shape != wanted.shape:
            seen = f"an array of shape {got.shape}" if isinstance(got, np.ndarray) else repr(got)
            raise WrongCollective(f"{where}rank {r} has {seen}, expected shape {wanted.shape}")
        if not np.allclose(got, wanted, rtol=0, atol=within):
            diagnosed = combine is np.add and xs.dtype == np.int64
            cause = _cause(op, r, p, xs, got, wanted) if diagnosed else ""
            raise WrongCollective(
                f"{where}rank {r} has {_shown(got)}, expected {_shown(wanted)}{cause}"
            )
        if op == "all_reduce" and got.tobytes() != ends[0][1].tobytes():
            raise WrongCollective(
                f"{where}rank {r} and rank 0 differ in the last bits: each adds in an order of "
                "its own. Add up each element in one order, and copy it."
            )


def _cause(op: str, r: int, p: int, xs: np.ndarray, got: np.ndarray, wanted: np.ndarray) -> str:
    """What is wrong with the first wrong element, and in which piece it is."""
    got, wanted = got.reshape(-1), wanted.reshape(-1)
    i = int(np.flatnonzero(got != wanted)[0])
    cuts = even_cuts(xs.shape[1], p)
    if op == "reduce_scatter":
        place = f"piece {r}"
    elif op == "all_to_all":
        place = f"row {i // max(1, len(got) // p)}"
    else:
        place = f"chunk {next(c for c in range(p) if i < cuts[c + 1])} (element {i})"
    value = int(got[i])
    if op not in REDUCING:
        if value == UNTOUCHED:
            return f": {place} was never filled"
        owner, element = divmod(value, xs.shape[1])
        return f": {place} is element {element} of rank {owner}"
    times = [value >> 4 * q & 15 for q in range(p)]
    wrong = [f"rank {q}'s part is in it {_times(t)}" for q, t in enumerate(times) if t != 1]
    return f": in {place} {', '.join(wrong)}"


def _check_cost(fn: Callable[..., Any], op: str, p: int, formula: Callable[..., Cost]) -> None:
    measured = measured_cost(fn, op, p)
    claimed = formula(p) if op == "barrier" else formula(p, 8 * COUNTED)
    for what, seen, wanted in zip(("messages", "bytes sent", "bytes added"), measured, claimed):
        if not np.isclose(seen, wanted):
            raise WrongCollective(
                f"with {_count(p, 'rank')} and {8 * COUNTED} bytes, there are {seen:g} {what} on "
                f"the longest chain; the formula says {wanted:g}"
            )


def _where(p: int, n: int) -> str:
    return f"with {_count(p, 'rank')} and {_count(n, 'element')}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _times(t: int) -> str:
    return "not at all" if t == 0 else "twice" if t == 2 else f"{t} times"


def _shown(x: np.ndarray) -> str:
    return np.array2string(x.reshape(-1), threshold=10, edgeitems=3).replace("\n", "")
