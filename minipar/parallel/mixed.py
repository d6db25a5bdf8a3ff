r"""Mixed precision: computed in 16 bits, kept in 32.

    masters   float32   ──── rounded ────►  weights    float16 or bfloat16
       ▲                                       │
       │ step                                  │ forward, backward
       │                                       ▼
    optimizer ◄──── to float32, / scale ──── gradients float16 or bfloat16

A step changes a weight by a thousandth of itself, or less. bfloat16 has 8 bits, float16 has 11: a
change below 1/256, or 1/2048, would be rounded away, each time. So the optimizer has a float32 copy
of each weight, its master, adds up there, and rounds it into the weight that the model computes
with. Its own state is float32, too. What needs more than 16 bits in between is ops/half.py.

float16 has a second trouble. It ends at 65504 above and at 6e-8 below, and many gradients are
smaller. So the loss is multiplied by a scale before backward, and so are all gradients, by the
chain rule; on the way into the optimizer they are divided by it, in float32. The scale is found by
trying: if a gradient is inf or nan the step is left out and the scale is halved, and after many
good steps it is doubled. The norm tells: clipping makes one of all gradients of all ranks, so all
ranks leave out the same steps, without a message. bfloat16 has the range of float32.

Sharding (ZeRO) is hardly the business of this file: an optimizer over pieces of weights has masters
of these pieces. Who cuts the weights says of what they are pieces (`Masters.piece`), and brings the
pieces together where a model is to have all of its masters (`Mastered.owner`).
Memory: 2 bytes for a weight, 2 for its gradient, 4 for its master: what 4 + 4 bytes are in float32.
Papers: Micikevicius et al. 2018 (float16, sections 3.1 and 3.2); Kalamkar et al. 2019 (bfloat16).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from minipar.array import Array, array_module
from minipar.errors import Diverged, UsageError
from minipar.nn import BatchNorm, Module
from minipar.optim import Named, Optimizer
from minipar.parallel.flat import is_here, nothing
from minipar.parallel.strategy import MakeOptimizer
from minipar.spans import hold
from minipar.tensor import Tensor

FIRST_SCALE = 2.0**16
LEAST_SCALE = 2.0**-16  # gradients that overflow with that are no matter of the scale
GOOD_STEPS = 2000  # after which a larger scale is tried


class LossScale:
    """By what the loss is multiplied before backward, and its gradients divided afterwards."""

    def __init__(self, scale: float = FIRST_SCALE, good_steps: int = GOOD_STEPS) -> None:
        self.scale, self.good_steps = scale, good_steps
        self.good = 0  # steps since the scale has changed

    def holds(self, norm: float) -> bool:
        """Whether the step counts whose gradient has this norm; sets the scale for the next one.

        Raises: Diverged, if no scale will help.
        """
        if not math.isfinite(norm):
            self.scale, self.good = self.scale / 2, 0
            if self.scale < LEAST_SCALE:
                raise Diverged(
                    "float16: the gradient is inf or nan, by however little the loss is multiplied "
                    f"(now {self.scale:.0e}); try a smaller --lr, or bfloat16."
                )
            return False
        self.good += 1
        if self.good == self.good_steps:
            self.scale, self.good = self.scale * 2, 0
        return True

    def overflowing(self) -> AbstractContextManager[Any]:
        """Inside, NumPy does not warn of numbers that become inf or nan: here that is the way."""
        return np.errstate(over="ignore", invalid="ignore")

    def state(self) -> list[float]:
        """What a checkpoint keeps of it."""
        return [self.scale, self.good]

    def load(self, state: list[float]) -> None:
        self.scale, self.good = float(state[0]), int(state[1])


class MixedPrecision:
    """Makes a model compute in 16 bits, and its optimizers keep masters.

        mixed = MixedPrecision(model, "bfloat16")
        strategy = DataParallel(model, group, mixed.optimizer(make_optimizer))

    To be made before the strategy. The moments of a batch norm stay float32.
    """

    def __init__(self, model: Module, dtype: str) -> None:
        """dtype: "float16" or "bfloat16".  Raises: UsageError."""
        self.model, self.dtype = model, half_dtype(dtype)
        self.scale = LossScale() if dtype == "float16" else None
        self.optimizers: list[Mastered] = []
        moments = {
            id(x)
            for m in model.modules()
            if isinstance(m, BatchNorm)
            for x in (m.running_mean, m.running_var)
        }
        self.rounded = [x for x in model.parameters() if id(x) not in moments]
        self.first: dict[int, Array] = {}  # the weights as they were, until an optimizer is made
        for x in self.rounded:
            self.first[id(x)] = x.data
            x.data = x.data.astype(self.dtype)

    def optimizer(self, make: MakeOptimizer) -> Masters:
        """Makes the same optimizers, each over masters."""
        return Masters(self, make)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Inside, the model has its masters: to save, load and compare; what is changed counts.

        A weight that has no master here is what it was rounded to. Collective, if there are pieces.
        """
        wide = {id(x): array for o in self.optimizers for x, array in o.whole()}
        before = [x.data for x in self.rounded]
        for x in self.rounded:
            x.data = wide[id(x)] if id(x) in wide else _in_float32(x.data)
        try:
            yield
        finally:
            for o in self.optimizers:
                o.take_back()
            for x, low in zip(self.rounded, before):
                if is_here(x.data) and is_here(low):
                    low[...] = x.data
                x.data = low


class Masters:
    """A `MakeOptimizer` whose optimizers are over masters."""

    def __init__(self, mixed: MixedPrecision, make: MakeOptimizer) -> None:
        self.mixed, self.make = mixed, make

    def __call__(self, named: Named) -> Any:
        mixed = self.mixed
        made = Mastered(named, self.make, mixed.first, mixed.scale)
        mixed.first.clear()
        mixed.optimizers.append(made)
        return made

    def piece(self, x: Tensor, there: slice, piece: Tensor) -> None:
        """Say, before the optimizer is made, that a tensor is this part of the flattened x."""
        first = self.mixed.first.get(id(x))
        if first is not None:
            self.mixed.first[id(piece)] = first.reshape(-1)[there].reshape(piece.shape)


class Owner(Protocol):
    """Who has cut the weights of an optimizer."""

    def together(self, pieces: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Array]]:
        """The parameters, and their arrays in all, of which these are pieces.  Collective."""

    def cut(self, wholes: Mapping[str, Array], pieces: Mapping[str, Tensor]) -> None:
        """Write into each piece what the array of its parameter has there."""


class Mastered:
    """An optimizer of float32 masters of some weights; its other attributes are the optimizer's."""

    def __init__(
        self,
        named: Named,
        make: MakeOptimizer,
        first: Mapping[int, Array],
        scale: LossScale | None = None,
    ) -> None:
        """first: weights before they were rounded, by the id of their tensor, as far as known."""
        self.weights = {name: x for name, x in named if x.requires_grad}
        self.masters = {
            name: Tensor(_master(x.data, first.get(id(x))), requires_grad=True)
            for name, x in self.weights.items()
        }
        hold("optimizer", self.masters)
        self.inner: Optimizer = make(self.masters.items())
        self.scale = scale
        self.owner: Owner | None = None  # if it is over pieces
        self._lent: dict[str, tuple[Tensor, Array]] = {}  # of pieces: parameters and whole masters

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each weight, and its master."""
        return zip(self.weights.values(), self.masters.values())

    def whole(self) -> list[tuple[Tensor, Array]]:
        """Each parameter of the model, and all of its master."""
        if self.owner is None:
            return [(x, master.data) for x, master in self.pairs()]
        self._lent = self.owner.together(self.masters)
        return list(self._lent.values())

    def take_back(self) -> None:
        """Let the pieces, and their masters, be what `whole` has become; others are the same."""
        if self.owner is not None:
            self.owner.cut({name: array for name, (_, array) in self._lent.items()}, self.masters)
            self._lent = {}
            for x, master in self.pairs():
                x.data[...] = master.data

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What has the gradients: the weights, not their masters."""
        return self.weights

    def step(self) -> None:
        """A step of the masters, which are then rounded into the weights."""
        if self.scale is not None:
            self.inner.gradient_scale = self.scale.scale
        for x, master in self.pairs():
            master.grad = x.grad
        self.inner.copies = {name: x.data for name, (x, _) in zip(self.masters, self.pairs())}
        self.inner.step()
        for _, master in self.pairs():
            master.grad = None

    def zero_grad(self) -> None:
        for x in self.weights.values():
            x.zero_grad()

    @property
    def lr(self) -> float:
        return self.inner.lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self.inner.lr = lr

    @property
    def steps(self) -> int:
        return self.inner.steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self.inner.steps = steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def half_dtype(name: str) -> Any:
    """float16 or bfloat16 as a dtype.  Raises: UsageError if there is no bfloat16 here."""
    if name == "float16":
        return np.dtype("float16")
    if name != "bfloat16":
        raise UsageError(f"mixed precision is float16 or bfloat16, not {name!r}.")
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise UsageError(
            "bfloat16 is no dtype of NumPy's: the package ml_dtypes has it (pip install ml_dtypes)."
        ) from None
    return np.dtype(bfloat16)


def _master(rounded: Array, first: Array | None) -> Array:
    """The weight before it was rounded, where that is known and nobody has changed it since."""
    wide = rounded.astype("float32")
    if first is None:
        return wide
    xp = array_module(rounded)
    return xp.where(first.astype(rounded.dtype) == rounded, first.astype("float32"), wide)


def _in_float32(x: Array) -> Array:
    if is_here(x):
        return x.astype("float32")
    return nothing(array_module(x).broadcast_to(array_module(x).zeros((), "float32"), x.shape))
