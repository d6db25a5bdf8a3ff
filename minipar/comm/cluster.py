"""The machine that a run on the local backend pretends to have: how long things take there.

    Cluster(alpha_s=5e-6, beta_s_per_byte=1 / 10e9)              equal links between all ranks
    Cluster(per_node=4, between=(20e-6, 1 / 1e9))                ranks 0-3 on one node, 4-7 on ...
    Cluster(slow={1: 5.0})                                       rank 1 computes 5 times as long

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


@dataclass(frozen=True)
class Cluster:
    """Declared speeds, for `minipar.run(fn, ranks, cluster=Cluster(...))`. Defaults: equal links.

    alpha_s:          seconds per message
    beta_s_per_byte:  seconds per byte sent; 1 / 10e9 is 10 GB/s
    gamma_s_per_byte: seconds per byte that a collective adds up
    slow:             {rank: factor}: its computation, adding included, takes so many times as long
    per_node:         so many ranks with consecutive numbers share a node; 0: all of them do
    between:          (alpha_s, beta_s_per_byte) of messages from node to node; None: as within

    Times are rounded to whole nanoseconds, message by message.  Raises: UsageError.
    """

    alpha_s: float = 5e-6
    beta_s_per_byte: float = 1 / 10e9
    gamma_s_per_byte: float = 1 / 20e9
    slow: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    per_node: int = 0
    between: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("alpha_s", "beta_s_per_byte", "gamma_s_per_byte"):
            _check(name, getattr(self, name))
        if isinstance(self.per_node, bool) or not isinstance(self.per_node, Integral):
            raise UsageError(f"per_node is a whole number of ranks, not {self.per_node!r}")
        _check("per_node", self.per_node)
        if not isinstance(self.slow, Mapping):
            raise UsageError(f"slow is a table of ranks and factors, not {self.slow!r}")
        for rank, factor in self.slow.items():
            _check(f"slow, rank {rank},", factor)
        if self.between is not None:
            if not isinstance(self.between, Sequence) or len(self.between) != 2:
                raise UsageError(
                    f"between is [alpha_s, beta_s_per_byte] from node to node, not {self.between!r}"
                )
            for number in self.between:
                _check("between", number)
            object.__setattr__(self, "between", tuple(self.between))
        object.__setattr__(self, "slow", MappingProxyType(dict(self.slow)))

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
            slow = fields.get("slow")
            if isinstance(slow, dict):
                fields["slow"] = {_rank(word): factor for word, factor in slow.items()}
            return cls(**fields)
        except UsageError as error:
            raise UsageError(f"{path}: {error}.") from None

    def message_ns(self, src: int, dst: int, nbytes: int) -> int:
        """α + n·β of that link."""
        alpha, beta = self.alpha_s, self.beta_s_per_byte
        if self.between and self.per_node and src // self.per_node != dst // self.per_node:
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


def _rank(word: str) -> int:
    if not word.isdecimal():
        raise UsageError(f"slow is a table of ranks, 1 = 2.0, and {word!r} is no rank")
    return int(word)


def _toml() -> Any:
    """Python's own reader.  Raises: UsageError where there is none."""
    if sys.version_info < (3, 11):
        raise UsageError("cluster files are read from Python 3.11 on; in a script: Cluster(...).")
    return import_module("tomllib")
