"""α, β and γ of this machine, from times that were measured.

    a message of n bytes    t = α + n·β
    n bytes added           t = c + n·γ         (c, what NumPy takes for any addition, is not used)

Both are straight lines through (n, t), found by least squares on the *relative* error: minimal is
the sum of ((a + n·b - t) / t)². The plain sum of squares would see nothing but the largest arrays,
and give an α that is noise.

A memory is no straight line: bytes that fit into a cache are cheaper than those that do not. The
line that is found is between the two; `Machine.error` says how far from it the measurements are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from minipar import cost


class Line(NamedTuple):
    """start seconds + slope seconds per byte; error: the root of the mean square relative error."""

    start: float
    slope: float
    error: float


class Machine(NamedTuple):
    """What the formulas of `cost` need; error: the larger one of the two lines."""

    alpha: float  # seconds per message
    beta: float  # seconds per byte sent
    gamma: float  # seconds per byte added
    error: float


def line(seconds: Mapping[int, float]) -> Line:
    """The line through measured seconds by bytes; neither of its numbers is below zero.

    Raises: ValueError for fewer than two sizes.
    """
    if len(seconds) < 2:
        raise ValueError(f"a line needs measurements of at least 2 sizes, not {len(seconds)}")
    n, t = np.array(list(seconds)), np.array(list(seconds.values()))
    columns = np.stack([1 / t, n / t], axis=1)
    candidates = [_solve(columns, kept) for kept in ([0, 1], [0], [1])]
    allowed = [c for c in candidates if min(c.start, c.slope) >= 0]
    return min(allowed, key=lambda found: found.error)


def _solve(columns: np.ndarray, kept: list[int]) -> Line:
    """Least squares with only these of the two columns; the other number is 0."""
    ones = np.ones(len(columns))
    found = np.zeros(2)
    found[kept] = np.linalg.lstsq(columns[:, kept], ones)[0]
    error = np.sqrt(np.mean((columns @ found - ones) ** 2))
    return Line(float(found[0]), float(found[1]), float(error))


def machine(sent: Mapping[int, float], added: Mapping[int, float]) -> Machine:
    """sent: seconds of a message by its bytes.  added: seconds of an addition by its bytes."""
    message, addition = line(sent), line(added)
    error = max(message.error, addition.error)
    return Machine(message.start, message.slope, addition.slope, error)


def predicted(op: str, algorithm: str, p: int, n: float, machine: Machine) -> float:
    """Seconds of a call, by its formula in `cost`; send_recv is one message."""
    chain = cost.Cost(1, n, 0) if op == "send_recv" else cost.of(op, algorithm, p, n)
    return chain.seconds(machine.alpha, machine.beta, machine.gamma)
