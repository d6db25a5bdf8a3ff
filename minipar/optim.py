"""Optimizers: how a gradient changes its parameter.

An optimizer is made over named parameters (a model's, or the slices that a rank holds) and keeps
arrays of the same shapes beside them. `lr` is an attribute: set it before each step.

Letters: x a parameter, g its gradient, m and v running means of g and g².
The formulas are in the docstrings; the code walks through the arrays in blocks that fit the cache
and writes with `out=`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from minipar import cuda
from minipar.array import Array, array_module, describe, on_host, sum_dtype
from minipar.blocks import BLOCK_BYTES, blocks, room
from minipar.errors import ShapeMismatch, UsageError
from minipar.spans import hold
from minipar.sparse import RowGradient, values
from minipar.tensor import Tensor

Named = Iterable[tuple[str, Tensor]]


class Optimizer:
    """What all optimizers share. A subclass says which state arrays it keeps, and `_update`."""

    slots: tuple[str, ...] = ()
    block_bytes = BLOCK_BYTES
    copies: Mapping[str, Array] = MappingProxyType({})  # by name: become the new x, in their dtype
    gradient_scale = 1.0  # what gradients were multiplied by on purpose, and are divided by here

    def __init__(self, named_parameters: Named, lr: float) -> None:
        pairs = list(named_parameters)
        if not all(isinstance(pair, tuple) and isinstance(pair[0], str) for pair in pairs):
            raise UsageError(
                f"{type(self).__name__} wants model.named_parameters(), pairs of name and tensor: "
                "its state is kept by name."
            )
        if len(names := [name for name, _ in pairs]) != len(set(names)):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(
                f"{type(self).__name__}: two parameters are called {twice}; the state of an "
                "optimizer is kept by name, so each needs one of its own."
            )
        self.parameters = {name: x for name, x in pairs if x.requires_grad}
        for name, x in self.parameters.items():
            if not x.data.flags.c_contiguous:
                raise UsageError(f"{name} is not contiguous in memory; make it so with .copy().")
        self.lr, self.steps = lr, 0
        self.state = {
            name: {s: array_module(x.data).zeros(x.shape, x.dtype) for s in self.slots}
            for name, x in self.parameters.items()
        }  # not zeros_like: that writes the zeros, and so takes memory for rows never touched
        self._hold()

    def _hold(self) -> None:
        """Tell a trace, which may have begun after this was made."""
        hold("optimizer", self.state)

    def step(self) -> None:
        """Change each parameter that has a gradient, which may be of another dtype."""
        self.steps += 1
        self._hold()
        done = self._step_at_once()
        for name, x in self.parameters.items():
            if x.grad is None or name in done:
                continue
            if isinstance(x.grad, RowGradient):
                self._step_rows(name, x.data, x.grad)
            else:
                self._step_dense(name, x)
            if name in self.copies:
                self.copies[name][...] = x.data

    def _step_at_once(self) -> Collection[str]:
        """Change the parameters for which there is one launch on a GPU; their names."""
        return ()

    def _step_dense(self, name: str, x: Tensor) -> None:
        arrays = [a.reshape(-1) for a in (x.data, x.grad, *self.state[name].values())]
        block_bytes = room(x.data, self.block_bytes)
        if x.data.nbytes <= block_bytes:
            self._update_by(x.ndim, *arrays)
            return
        for part in blocks(x.data.size, x.data.itemsize, block_bytes):
            self._update_by(x.ndim, *[a[part] for a in arrays])

    def _update_by(self, ndim: int, x: Array, g: Array, *state: Array) -> None:
        """`_update` by a gradient as it came."""
        g = g.astype(x.dtype, copy=False)
        if self.gradient_scale != 1:
            g = g * (1 / self.gradient_scale)
        self._update(ndim, x, g, *state)

    def _update(self, ndim: int, x: Array, g: Array, *state: Array) -> None:
        """Write the new x and state in place; ndim is that of the whole parameter."""
        raise NotImplementedError

    def _zero_changes_nothing(self) -> bool:
        """Whether an element whose gradient is zero stays as it is, and so does its state."""
        return False

    def _step_rows(self, name: str, x: Array, g: RowGradient) -> None:
        """Change the rows that were touched: the same numbers as with the dense gradient."""
        if not self._zero_changes_nothing():
            raise UsageError(
                f"{type(self).__name__}: the gradient of {name} is sparse, but momentum and weight "
                "decay move every row in every step. Use Adagrad, or SGD, without them; or a dense "
                "gradient (sparse=False)."
            )
        arrays = [x, *self.state[name].values()]
        parts = [a[g.ids] for a in arrays]
        self._update_by(x.ndim, parts[0], g.rows, *parts[1:])
        for a, part in zip(arrays, parts):
            a[g.ids] = part

    def zero_grad(self) -> None:
        for x in self.parameters.values():
            x.zero_grad()

    def state_dict(self) -> dict[str, Array]:
        """{"step": ..., "blocks.0.mlp.up.weight/m": ...}, copies."""
        xp = array_module()
        flat = {"step": xp.asarray(self.steps)}
        for name, state in self.state.items():
            flat |= {f"{name}/{slot}": array.copy() for slot, array in state.items()}
        return flat

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; nothing is changed if a name or shape is wrong."""
        own = {f"{n}/{s}": array for n, state in self.state.items() for s, array in state.items()}
        check_state({name: array.shape for name, array in own.items()}, flat)
        for name, array in own.items():
            array[...] = array_module(array).asarray(flat[name])
        self.steps = int(flat["step"])


def check_state(shapes: Mapping[str, Sequence[int]], flat: Mapping[str, Any]) -> None:
    """Whether `flat` is complete optimizer state with arrays of these shapes, and "step".

    Raises: UsageError if a name is missing or unexpected; ShapeMismatch.
    """
    names = shapes.keys() | {"step"}
    if names != flat.keys():
        raise UsageError(
            f"optimizer state: missing {sorted(names - flat.keys())}, unexpected "
            f"{sorted(flat.keys() - names)}. It must come from the same optimizer and model."
        )
    for name, shape in shapes.items():
        if flat[name].shape != tuple(shape):
            raise ShapeMismatch(
                f"optimizer state: {name} is {describe(flat[name])} in what was loaded, the "
                f"parameter here is {list(shape)}."
            )


class SGD(Optimizer):
    """m = momentum · m + g + weight_decay · x;   x -= lr · m   (m is g if momentum is 0)."""

    block_bytes = (
        8 * BLOCK_BYTES
    )  # few passes over few arrays: a call costs more than the cache saves

    def __init__(
        self, named_parameters: Named, lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        self.momentum, self.weight_decay = momentum, weight_decay
        self.slots = ("m",) if momentum else ()
        super().__init__(named_parameters, lr)

    def _update(self, ndim: int, x: Array, g: Array, *state: Array) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * x
        if self.momentum:
            (m,) = state
            m *= self.momentum
            m += g
            g = m
        x -= self.lr * g

    def _zero_changes_nothing(self) -> bool:
        return not self.momentum and not self.weight_decay


class Adagrad(Optimizer):
    """A step size of its own for each element, smaller the more it has moved (Duchi et al. 2011).

        v = v + g²
        x = x - lr · g / (√v + eps)

    A word that is rare gets large steps when it comes, a frequent one small ones. Where g is zero
    nothing changes, so a sparse gradient gives the same as a dense one, to the bit.
    """

    slots = ("v",)

    def __init__(self, named_parameters: Named, lr: float = 1e-2, eps: float = 1e-10) -> None:
        super().__init__(named_parameters, lr)
        self.eps = eps

    def _update(self, ndim: int, x: Array, g: Array, *state: Array) -> None:
        (v,) = state
        scratch = g * g
        v += scratch
        array_module(x).sqrt(v, out=scratch)
        scratch += self.eps
        array_module(x).divide(g, scratch, out=scratch)
        scratch *= self.lr
        x -= scratch

    def _zero_changes_nothing(self) -> bool:
        return True


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Kingma & Ba 2015, Loshchilov & Hutter 2019).

        m = β1 · m + (1 - β1) · g
        v = β2 · v + (1 - β2) · g²
        x = (1 - lr · weight_decay) · x - lr · (m / (1 - β1ⁿ)) / (√(v / (1 - β2ⁿ)) + eps)

    n is the number of this step. decay_vectors=False spares parameters of one dimension (biases
    and gains) the decay, as GPT-2 and its followers do.
    """

    slots = ("m", "v")

    def __init__(
        self,
        named_parameters: Named,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        decay_vectors: bool = True,
    ) -> None:
        super().__init__(named_parameters, lr)
        self.betas, self.eps = betas, eps
        self.weight_decay, self.decay_vectors = weight_decay, decay_vectors

    def _decay(self, ndim: int) -> float:
        return self.weight_decay if ndim > 1 or self.decay_vectors else 0.0

    def _step_at_once(self) -> Collection[str]:
        parts = {
            name: cuda.Part(x.data, x.grad, m, v, self.copies.get(name), self._decay(x.ndim))
            for name, x in self.parameters.items()
            for m, v in [self.state[name].values()]
            if cuda.updates(x.data, x.grad, self.copies.get(name))
        }
        rates = (self.lr, self.betas, self.eps, self.steps, 1 / self.gradient_scale)
        cuda.adamw(list(parts.values()), cuda.Rates(*rates))
        return parts.keys()

    def _update(self, ndim: int, x: Array, g: Array, *state: Array) -> None:
        if decay := self._decay(ndim):
            x *= 1 - self.lr * decay
        self._adam(x, g, *state)

    def _adam(self, x: Array, g: Array, m: Array, v: Array) -> None:
        """x - lr · m̂ / (√v̂ + eps), with the two corrections drawn into lr and eps:

        lr · (m / c1) / (√(v / c2) + eps)  =  (lr · √c2 / c1) · m / (√v + eps · √c2).
        """
        xp = array_module(x)
        beta1, beta2 = self.betas
        c1, root = 1 - beta1**self.steps, math.sqrt(1 - beta2**self.steps)
        scratch = g * (1 - beta1)
        m *= beta1
        m += scratch
        xp.multiply(g, g, out=scratch)
        scratch *= 1 - beta2
        v *= beta2
        v += scratch
        xp.sqrt(v, out=scratch)
        scratch += self.eps * root
        xp.divide(m, scratch, out=scratch)
        scratch *= self.lr * root / c1
        x -= scratch


class Adam(AdamW):
    """Adam with weight decay as part of the gradient, g + weight_decay · x; none by default."""

    def __init__(
        self,
        named_parameters: Named,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decay_vectors: bool = True,
    ) -> None:
        super().__init__(named_parameters, lr, betas, eps, weight_decay, decay_vectors)

    def _step_at_once(self) -> Collection[str]:
        return ()

    def _update(self, ndim: int, x: Array, g: Array, *state: Array) -> None:
        if decay := self._decay(ndim):
            g = g + decay * x
        self._adam(x, g, *state)


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Shrink all gradients by one factor so that their joint norm is at most max_norm.

    Returns the norm √(Σ g²) before. A GPU is waited for, once.
    """
    grads = [values(x.grad) for x in parameters if x.grad is not None]
    if grads and cuda.fast(*grads) and all(g.flags.c_contiguous for g in grads):
        norm = math.sqrt(float(cuda.squared_norm(grads)))
        if norm > max_norm:
            cuda.scale(grads, max_norm / norm)
        return norm
    norm = math.sqrt(sum(squared_norm(g) for g in grads))
    if norm > max_norm:
        for g in grads:
            g *= max_norm / norm
    return norm


def squared_norm(g: Array) -> Any:
    """Σ g² in float64; on a GPU an array of no dimension. A sharded model adds these up."""
    flat, dtype = g.reshape(-1), sum_dtype(g.dtype)  # the square of a float16 may be none
    if not on_host(flat):
        return array_module(flat).square(flat.astype(dtype, copy=False)).sum(dtype="float64")
    parts = (flat[part].astype(dtype, copy=False) for part in blocks(flat.size, flat.itemsize))
    return sum(float(part @ part) for part in parts)


def warmup_cosine(step: int, steps: int, peak: float, warmup: int = 0, floor: float = 0.0) -> float:
    """The learning rate of step 0 .. steps-1: up in a line to peak, then a half cosine to floor.

    The first step has peak / warmup, step `warmup - 1` has peak; from step `steps` on it is floor.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))
