"""Is a vjp the derivative of its op? Finite differences along random directions tell.

For z = f(x, ...), a random r of z's shape and a random d of x's shape, the number <r, f(x)> changes
along d at the rate

    <vjp(r), d>   =   ( <r, f(x + εd)> - <r, f(x - εd)> ) / 2ε   + O(ε²)

so two evaluations check all elements of one parent's gradient at once, up to an error that would
have to be orthogonal to a random direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np

from minipar.errors import MiniparError
from minipar.random import normal
from minipar.tensor import Tensor, no_grad


class GradientMismatch(MiniparError, AssertionError):
    """A vjp disagrees with finite differences, or with itself."""


def gradcheck(
    f: Callable[..., Tensor],
    *inputs: Any,
    epsilon: float = 1e-5,
    tolerance: float = 1e-7,
    seed: int = 0,
) -> None:
    """Check f(*tensors) -> Tensor by finite differences in float64, at the point `inputs`.

    inputs: arrays of floats, all of which get checked; bind everything else with a lambda.
    Every subset of the inputs is tried as the wanted one (what is not wanted must not disturb the
    others), and so is leaving each input for later (`backward(defer=...)`).
    Raises: GradientMismatch, which says which input is wrong, and by how much.
    """
    xs = [np.array(x.data if isinstance(x, Tensor) else x, dtype=np.float64) for x in inputs]
    with no_grad():
        shape = f(*map(Tensor, xs)).shape
    r = normal(seed, "gradcheck.r", shape)
    slopes = [_slopes(f, xs, i, r, epsilon, seed) for i in range(len(xs))]
    for wanted in _subsets(len(xs)):
        tensors = [Tensor(x, requires_grad=i in wanted) for i, x in enumerate(xs)]
        f(*tensors).backward(r)
        for i in wanted:
            _compare(tensors[i].grad, slopes[i], f"input {i} (wanted: {wanted})", tolerance)
        for i in set(range(len(xs))) - set(wanted):
            if tensors[i].grad is not None:
                raise GradientMismatch(f"gradcheck: input {i} got a gradient nobody wanted.")
    for late in range(len(xs)):
        tensors = [Tensor(x, requires_grad=True) for x in xs]
        f(*tensors).backward(r, defer=[tensors[late]])()
        for i in range(len(xs)):
            _compare(tensors[i].grad, slopes[i], f"input {i} (deferred: {late})", tolerance)


def _subsets(n: int) -> Iterator[tuple[int, ...]]:
    for k in range(1, n + 1):
        yield from combinations(range(n), k)


def _slopes(
    f: Callable[..., Tensor], xs: list[Any], i: int, r: Any, epsilon: float, seed: int
) -> tuple[Any, float]:
    """A random direction for input i, and the slope of <r, f> along it."""
    d = normal(seed, f"gradcheck.{i}", xs[i].shape)
    ends = []
    for sign in (1, -1):
        moved = [x + sign * epsilon * d if j == i else x for j, x in enumerate(xs)]
        with no_grad():
            ends.append((r * f(*map(Tensor, moved)).data).sum())
    return d, float(ends[0] - ends[1]) / (2 * epsilon)


def _compare(grad: Any, slope: tuple[Any, float], which: str, tolerance: float) -> None:
    d, expected = slope
    if grad is None:
        raise GradientMismatch(f"gradcheck: {which} got no gradient.")
    found = float((grad * d).sum())
    error = abs(found - expected) / max(1.0, abs(expected))
    if not error <= tolerance:
        raise GradientMismatch(
            f"gradcheck: {which}: along a random direction the vjp gives {found:.9g}, finite "
            f"differences {expected:.9g}; the relative error is {error:.1e}, allowed {tolerance:g}."
        )
