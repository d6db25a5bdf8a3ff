"""How long each collective takes: measured, predicted, and beside gloo and OpenMPI.

For each call and size, minipar (in one algorithm or in all) and its peers are asked in turn, round
after round, and the median of the rounds counts. A machine that gets slower for a while gets slower
for all of them. Only one contender runs at a time; the ranks of the others sleep.

The prediction is the formula of `cost`, with the α, β and γ that `fit` finds on the same ranks just
before: from messages between two of them, and from additions on one.

Bus bandwidth is what nccl-tests call so: the bytes that each rank must send at the least (and, for
broadcast and send_recv, the array), divided by the time. n is the bytes of the whole array.
"""

from __future__ import annotations

import difflib
import re
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from minipar.bench.comm_peers import PEERS, Contender, Missing, Unsupported, start
from minipar.bench.fit import Machine, machine, predicted
from minipar.comm.algorithms import ALGORITHMS
from minipar.comm.choose import choose
from minipar.comm.environment import usable_cores
from minipar.comm.launch import BACKENDS
from minipar.errors import RankFailed, UsageError

KB, MB = 2**10, 2**20
COLLECTIVES = ("all_reduce", "reduce_scatter", "all_gather", "broadcast", "all_to_all", "barrier")
OPS = (*COLLECTIVES[:4], "send_recv", *COLLECTIVES[4:])
SIZES = (8, 64 * KB, MB, 16 * MB, 64 * MB)
SENT = (8, KB, 8 * KB, 64 * KB, 256 * KB, MB, 4 * MB, 16 * MB)  # α and β are fitted to these
ADDED = (64 * KB, 256 * KB, MB, 4 * MB, 16 * MB)  # and γ to these
MEMORIES = ("private", "shared")
AT_A_TIME_S, FEWEST, MOST = 0.03, 3, 20_000  # how long, and how many calls, are timed together


@dataclass(frozen=True)
class Plan:
    """What is measured.  Raises: UsageError for what cannot be."""

    ranks: int = 2
    ops: Sequence[str] = OPS
    sizes: Sequence[int] = SIZES  # bytes of the whole array
    algorithms: Sequence[str] = ("default",)  # also "all"
    against: Sequence[str] = tuple(PEERS)
    rounds: int = 5
    backend: str = "process"
    memory: str = "private"  # of minipar's arrays; "shared": from group.empty()
    pythons: Sequence[str] = ()  # interpreters in which peers may be installed

    def __post_init__(self) -> None:
        own = ["native"] if self.backend == "mpi" else []  # MPI's, which has no formula
        known = dict.fromkeys(name for op in self.ops for name in ALGORITHMS.get(op, ()))
        for kind, names, allowed in (
            ("call", self.ops, OPS),
            ("backend", [self.backend], BACKENDS),
            ("memory", [self.memory], MEMORIES),
            ("peer", self.against, tuple(PEERS)),
            (
                f"algorithm of {', '.join(self.ops)}",
                self.algorithms,
                ("default", "all", *known, *own),
            ),
        ):
            for name in names:
                if name not in allowed:
                    _refuse(kind, name, allowed)
        if min(self.ranks, self.rounds) < 1:
            raise UsageError("bench comm needs at least 1 rank and 1 round.")
        for op in set(self.ops) & set(ALGORITHMS):
            if not self.names(op, 0):
                given, has = ", ".join(self.algorithms), ", ".join(ALGORITHMS[op])
                raise UsageError(f"{op} has no algorithm {given}; it has {has}.")

    def names(self, op: str, nbytes: int) -> list[str]:
        """The algorithms of one call that are measured, each once."""
        if op not in ALGORITHMS:
            return ["there_and_back"]
        names: list[str] = []
        for name in self.algorithms:
            if name == "default":
                names.append(choose(op, nbytes, self.ranks, self.backend))
            elif name == "native":
                names.append(name)
            else:
                names += [known for known in ALGORITHMS[op] if name in ("all", known)]
        return list(dict.fromkeys(names))


def _refuse(kind: str, name: str, allowed: Sequence[str]) -> NoReturn:
    near = difflib.get_close_matches(name, allowed, n=1)
    hint = f"is it {near[0]}?" if near else f"there are {', '.join(allowed)}."
    raise UsageError(f"there is no {kind} {name!r}; {hint}")


def bytes_of(text: str) -> int:
    """The bytes of a size as it is written: 8, 64K, 1M, 1.5MB.  Raises: UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", text.strip().upper())
    if found is None:
        raise UsageError(f"cannot read the size {text!r}; write bytes, such as 8, 64K, 1M or 1.5M.")
    return int(float(found[1]) * 1024 ** " KMG".index(found[2] or " "))


# -- measuring --------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One of those that take turns."""

    contender: Contender
    algorithm: str


def bench_comm(plan: Plan) -> Iterator[dict[str, Any]]:
    """Rows, each as soon as it is measured; docs/bench.md says what is in them.

    Raises: RankFailed if minipar's own ranks fail.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minipar-")))
        contenders = []
        for name in (plan.backend, *plan.against):
            try:
                found = start(name, plan.ranks, folder, plan.pythons, plan.memory)
                contenders.append(stack.enter_context(closing(found)))
            except Missing as reason:
                if name == plan.backend:
                    raise RankFailed(f"bench comm: {reason}") from None
                yield _without(plan, name, str(reason))
        fitted = None
        if plan.ranks > 1:
            fitted = _fit(contenders[0], plan.rounds)
            yield {"fit": _described(plan, fitted, contenders)}
        for op in plan.ops:
            for nbytes in dict.fromkeys(whole_bytes(op, size, plan.ranks) for size in plan.sizes):
                yield from _case(plan, contenders, op, nbytes, fitted)


def _case(
    plan: Plan, contenders: list[Contender], op: str, nbytes: int, fitted: Machine | None
) -> Iterator[dict[str, Any]]:
    """All rows of one call and size."""
    if op == "send_recv" and plan.ranks < 2:
        yield _without(plan, plan.backend, "send_recv needs 2 ranks", op)
        return
    entries = [Entry(contenders[0], name) for name in plan.names(op, nbytes)]
    entries += [Entry(peer, "native") for peer in contenders[1:]]
    seconds, notes = in_turn(entries, op, nbytes, plan.rounds)
    by_peer = {e.contender.name: s for e, s in seconds.items() if e.contender.name in PEERS}
    for entry in entries:
        name = entry.contender.name
        if entry in notes:
            yield _without(plan, name, notes[entry], op, nbytes) | {"algorithm": entry.algorithm}
            continue
        row = _row(plan, name, op, nbytes) | {"algorithm": entry.algorithm}
        row["seconds"] = seconds[entry]
        row["bus_gb_s"] = bus_bytes(op, plan.ranks, nbytes) / seconds[entry] / 1e9
        if name not in PEERS:
            row["ratio"] = {peer: s / seconds[entry] for peer, s in by_peer.items()}
            if fitted is not None and entry.algorithm != "native":
                guess = predicted(op, entry.algorithm, plan.ranks, nbytes, fitted)
                row["predicted_seconds"] = guess
        yield row


def in_turn(
    entries: Sequence[Entry], op: str, nbytes: int, rounds: int
) -> tuple[dict[Entry, float], dict[Entry, str]]:
    """The median seconds of each entry, or a note why it has none.  Raises: RankFailed."""
    times: dict[Entry, int] = {}
    seconds: dict[Entry, list[float]] = {entry: [] for entry in entries}
    notes: dict[Entry, str] = {}
    for turn in range(-2, rounds):  # two turns to warm up, and to see how long a call takes
        for entry in entries:
            if entry in notes:
                continue
            try:
                found = entry.contender.ask(op, entry.algorithm, nbytes, times.get(entry, FEWEST))
            except (Missing, Unsupported) as reason:
                if isinstance(reason, Missing) and entry.contender.name not in PEERS:
                    raise RankFailed(f"bench comm, {op} of {nbytes} bytes: {reason}") from None
                notes[entry] = str(reason)
                continue
            if turn < 0:
                times[entry] = min(MOST, max(FEWEST, round(AT_A_TIME_S / max(found, 1e-9))))
            else:
                seconds[entry].append(found)
    return {
        entry: statistics.median(s) for entry, s in seconds.items() if entry not in notes
    }, notes


def _fit(contender: Contender, rounds: int) -> Machine:
    def measured(op: str, sizes: Sequence[int]) -> dict[int, float]:
        entry = Entry(contender, "")
        return {n: in_turn([entry], op, n, rounds)[0][entry] for n in sizes}

    return machine(measured("send_recv", SENT), measured("add", ADDED))


# -- what a row says --------------------------------------------------------------------------


def whole_bytes(op: str, nbytes: int, ranks: int) -> int:
    """The bytes of an array that the call can take, not less: whole float32, alike on all ranks."""
    if op == "barrier":
        return 0
    step = 4 * ranks if op in ("reduce_scatter", "all_gather", "all_to_all") else 4
    return max(1, -(-nbytes // step)) * step


def bus_bytes(op: str, p: int, n: int) -> float:
    """The bytes that bus bandwidth counts for a call with n bytes on p ranks."""
    if op in ("broadcast", "send_recv"):
        return n
    return (p - 1) / p * n * (2 if op == "all_reduce" else 1)


def _row(plan: Plan, name: str, op: str | None, nbytes: int | None) -> dict[str, Any]:
    memory = "private" if name in PEERS else plan.memory
    values = ("algorithm", "seconds", "bus_gb_s", "predicted_seconds", "ratio", "note")
    row = {"backend": name, "op": op, "ranks": plan.ranks, "bytes": nbytes, "memory": memory}
    return row | dict.fromkeys(values)


def _without(
    plan: Plan, name: str, note: str, op: str | None = None, nbytes: int | None = None
) -> dict[str, Any]:
    return _row(plan, name, op, nbytes) | {"note": note}


def _described(plan: Plan, fitted: Machine, contenders: Sequence[Contender]) -> dict[str, Any]:
    return {
        "alpha_s": fitted.alpha,
        "beta_s_per_byte": fitted.beta,
        "gamma_s_per_byte": fitted.gamma,
        "relative_error": fitted.error,
        "backend": plan.backend,
        "memory": plan.memory,
        "ranks": plan.ranks,
        "cores": usable_cores(),
        "rounds": plan.rounds,
        "versions": [contender.version for contender in contenders],
    }


def kept(rows: Iterable[dict[str, Any]], into: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows, as they come; they are also kept."""
    for row in rows:
        into.append(row)
        yield row
