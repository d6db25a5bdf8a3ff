"""The machine that a run on the local backend pretends to have: how long things take there.

    Cluster(alpha_s=5e-6, beta_s_per_byte=1 / 10e9)              equal links between all ranks
    Cluster(per_node=4, between=(20e-6, 1 / 1e9))                ranks 0-3 on one node, 4-7 on ...
    Cluster(pairs={(2, 3): (1e-3, 1 / 1e8)})                     one cable is bad
    Cluster(slow={1: 5.0})                                       rank 1 computes 5 times as long
    Cluster(lost={3: 0.010})                                     rank 3 is gone after 10 ms

It is plain numbers; `virtual` is the clock that goes by them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import Any

from minipar.errors import UsageError


def _nothing() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Cluster:
    """Declared speeds, for `minipar.run(fn, ranks, cluster=Cluster(...))`. Defaults: equal links.

    alpha_s:          seconds per message
    beta_s_per_byte:  seconds per byte sent; 1 / 10e9 is 10 GB/s
    gamma_s_per_byte: seconds per byte that a collective adds up
    slow:             {rank: factor}: its computation, adding included, takes so many times as long
    per_node:         so many ranks with consecutive numbers share a node; 0: all of them do
    between:          (alpha_s, beta_s_per_byte) of messages from node to node; None: as within
    pairs:            {(rank, rank): (alpha_s, beta_s_per_byte)}: the link of these two, both ways,
                      whatever nodes they are on
    lost:             {rank: seconds}: when in the run that rank is lost, as if it were killed

    Times are rounded to whole nanoseconds, message by message.  Raises: UsageError.
    """

    alpha_s: float = 5e-6
    beta_s_per_byte: float = 1 / 10e9
    gamma_s_per_byte: float = 1 / 20e9
    slow: Mapping[int, float] = field(default_factory=_nothing)
    per_node: int = 0
    between: tuple[float, float] | None = None
    pairs: Mapping[tuple[int, int], tuple[float, float]] = field(default_factory=_nothing)
    lost: Mapping[int, float] = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        for name in ("alpha_s", "beta_s_per_byte", "gamma_s_per_byte"):
            _check(name, getattr(self, name))
        if isinstance(self.per_node, bool) or not isinstance(self.per_node, Integral):
            raise UsageError(f"per_node is a whole number of ranks, not {self.per_node!r}")
        _check("per_node", self.per_node)
        _check_table("slow", self.slow, "ranks and factors")
        _check_table("lost", self.lost, "ranks and moments")
        for rank, moment in self.lost.items():
            if round(1e9 * moment) < 1:
                raise UsageError(f"lost, rank {rank}, is a moment after the begin, not {moment}")
        if self.between is not None:
            object.__setattr__(self, "between", _link("between", self.between, "from node to node"))
        object.__setattr__(self, "slow", MappingProxyType(dict(self.slow)))
        object.__setattr__(self, "pairs", MappingProxyType(_links(self.pairs)))
        object.__setattr__(self, "lost", MappingProxyType(dict(self.lost)))

    @classmethod
    def from_file(cls, path: str | Path) -> Cluster:
        """From a TOML file with the names of the fields, as in docs/communication.md.

        Raises: UsageError.
        """
        try:
            with open(path, "rb") as file:
                fields = _toml().load(file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else f"{error}; it is in TOML"
            raise UsageError(f"{path} is no cluster file: {why}.") from None
        strangers = fields.keys() - cls.__dataclass_fields__.keys()
        if strangers:
            known = ", ".join(cls.__dataclass_fields__)
            raise UsageError(f"{path}: a cluster has {known}; not {', '.join(sorted(strangers))}.")
        try:
            for name, read in (("slow", _rank), ("lost", _rank), ("pairs", _pair)):
                if isinstance(table := fields.get(name), dict):
                    fields[name] = {read(name, word): value for word, value in table.items()}
            return cls(**fields)
        except UsageError as error:
            raise UsageError(f"{path}: {error}.") from None

    def message_ns(self, src: int, dst: int, nbytes: int) -> int:
        """α + n·β of that link."""
        alpha, beta = self.alpha_s, self.beta_s_per_byte
        if (pair := (min(src, dst), max(src, dst))) in self.pairs:
            alpha, beta = self.pairs[pair]
        elif self.between and self.per_node and src // self.per_node != dst // self.per_node:
            alpha, beta = self.between
        return round(1e9 * (alpha + beta * nbytes))

    def adding_ns(self, rank: int, nbytes: int) -> int:
        """n·γ on that rank."""
        return self.computing_ns(rank, self.gamma_s_per_byte * nbytes)

    def computing_ns(self, rank: int, seconds: float) -> int:
        """What takes so many seconds on a rank that is not slow."""
        return round(1e9 * seconds * self.slow.get(rank, 1.0))


def _check(name: str, number: Any) -> None:
    """Raises: UsageError unless that is a time, or a factor."""
    if isinstance(number, bool) or not isinstance(number, Real):
        raise UsageError(f"{name} is a number, not {number!r}")
    if not 0 <= float(number) < math.inf:  # nan is not
        raise UsageError(f"{name} is finite and not negative, not {number}")


def _check_table(name: str, table: Any, of: str) -> None:
    """Raises: UsageError unless that is a table of ranks with times or factors."""
    if not isinstance(table, Mapping):
        raise UsageError(f"{name} is a table of {of}, not {table!r}")
    for rank, number in table.items():
        _check(f"{name}, rank {rank},", number)


def _link(name: str, numbers: Any, where: str) -> tuple[float, float]:
    """α and β of a link.  Raises: UsageError."""
    if not isinstance(numbers, Sequence) or len(numbers) != 2:
        raise UsageError(f"{name} is [alpha_s, beta_s_per_byte] {where}, not {numbers!r}")
    for number in numbers:
        _check(name, number)
    return numbers[0], numbers[1]


def _links(pairs: Any) -> dict[tuple[int, int], tuple[float, float]]:
    """The smaller rank of each pair first.  Raises: UsageError."""
    if not isinstance(pairs, Mapping):
        raise UsageError(f"pairs is a table of pairs of ranks and their links, not {pairs!r}")
    found = dict[tuple[int, int], tuple[float, float]]()
    for pair, numbers in pairs.items():
        two = isinstance(pair, tuple) and len(pair) == 2 and pair[0] != pair[1]
        if not two or not all(isinstance(rank, Integral) for rank in pair):
            raise UsageError(f"pairs is a table of links between two ranks, and {pair!r} is no two")
        a, b = sorted(pair)
        if (a, b) in found:
            raise UsageError(f"pairs has the link of ranks {a} and {b} twice; it is for both ways")
        found[a, b] = _link(f"pairs, {a}-{b},", numbers, "both ways")
    return found


def _rank(name: str, word: str) -> int:
    if not word.isdecimal():
        raise UsageError(f"{name} is a table of ranks, 1 = 2.0, and {word!r} is no rank")
    return int(word)


def _pair(name: str, word: str) -> tuple[int, int]:
    first, _, second = word.partition("-")
    if not (first.isdecimal() and second.isdecimal()):
        raise UsageError(f"{name} is a table of links, 0-1 = [2e-5, 1e-9], and {word!r} is no pair")
    return int(first), int(second)


def _toml() -> Any:
    """Python's own reader.  Raises: UsageError where there is none."""
    if sys.version_info < (3, 11):
        raise UsageError("cluster files are read from Python 3.11 on; in a script: Cluster(...).")
    return import_module("tomllib")
