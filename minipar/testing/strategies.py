"""Hold a way of training in parallel against its definition.

    def mine(model, group, make_optimizer): ...        # gives a Strategy (parallel/strategy.py)

    check_strategy(mine)                               # or raises WrongStrategy

An exact strategy gives the weights, gradients and optimizer state of one rank with the whole batch.
An inexact one gives those of one process that holds all replicas; `testing.replicas` has what
minipar's own are held against, and is the place to look for how to write such a definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from minipar.array import Array
from minipar.comm.launch import run
from minipar.errors import MiniparError
from minipar.testing.training import (
    CASES,
    Case,
    MakeStrategy,
    largest_difference,
    train_all,
    train_alone,
)

TOLERANCE = 1e-10
PATIENCE_S = 60.0  # for a rank of the process backend that waits
Serial = Callable[[Case, int], list[dict[str, Array]]]  # case, ranks -> outcome of each rank


class WrongStrategy(MiniparError, AssertionError):
    """A strategy does not give what its definition does."""


class Difference(NamedTuple):
    """The largest one, and where it is."""

    error: float
    where: str


def one_rank(case: Case, p: int) -> list[dict[str, Array]]:
    """The definition of every exact strategy."""
    return [train_alone(case)] * p


def check_strategy(
    make: MakeStrategy,
    serial: Serial = one_rank,
    *,
    synchronised: bool = True,
    ranks: Iterable[int] = (1, 2, 3, 4),
    backend: str = "local",
) -> None:
    """Train a small net by the strategy, and compare it with its serial definition.

    make:    (model, group, make_optimizer) -> Strategy, called on every rank. On the process
             backend it must be one that a process can import.
    serial:  what it should be; left out: one rank with the whole batch.
    synchronised: whether the net's batch norm goes over all ranks.
    Trained is 10 steps in float64, with SGD and momentum, AdamW and clipping, uneven and
    accumulated rows. The net has shared and frozen weights, dropout and batch norm.
    Raises: WrongStrategy, which says with how many ranks and what differs most; and what it raises.
    """
    for p in ranks:
        found = difference(make, serial, synchronised, p, backend)
        if found.error > TOLERANCE:
            raise WrongStrategy(
                f"with {p} rank{'s' * (p > 1)} on {backend}: {found.where} is off by "
                f"{found.error:.2g}; {TOLERANCE:g} is allowed."
            )


def difference(
    make: MakeStrategy, serial: Serial, synchronised: bool, p: int, backend: str
) -> Difference:
    """How far a strategy is from its definition, in all cases.  Raises: what the ranks raise."""
    everything = run(train_all, p, args=(make, synchronised), backend=backend, timeout_s=PATIENCE_S)
    return worst(CASES, everything, lambda case: serial(case, p))


def worst(
    cases: Sequence[Any],
    everything: Sequence[Sequence[dict[str, Array]]],
    expected: Callable[[Any], list[dict[str, Array]]],
) -> Difference:
    """The largest difference in any case.  everything: outcomes by rank and case."""
    found = Difference(0.0, "")
    for case, outcomes in zip(cases, zip(*everything)):
        error, where = largest_difference(outcomes, expected(case))
        if error > found.error:
            found = Difference(error, f"{case.name}: {where}")
    return found
