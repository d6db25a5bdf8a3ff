"""The layers of image models: convolution and batch normalization, channels last.

`layer(x, draw)` is training, where a batch is normalised by its own moments; without a draw it is
evaluation, by running ones.
"""

from __future__ import annotations

from typing import Any

from minipar.array import array_module
from minipar.errors import UsageError
from minipar.nn.module import Module
from minipar.ops import batch_norm, conv2d
from minipar.ops.batch_norm import EPS, Moments, Total, alone, normalize
from minipar.random import Draw, Init
from minipar.tensor import Tensor


class Conv2d(Module):
    """z = conv2d(x, weight, bias).   x: [b, h, w, i]   weight: [k, l, i/groups, o].

    kernel, stride, padding, dilation: a number, or a pair (down, across).
    The initial weights have a variance of 2 / (numbers that enter one output), so that relu after
    relu neither grows nor shrinks the signal (He et al. 2015).
    """

    def __init__(
        self,
        init: Init,
        i: int,
        o: int,
        kernel: Any = 3,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        if i % groups or o % groups:
            raise UsageError(f"Conv2d: {i} and {o} channels cannot be cut into {groups} groups.")
        k, l = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        shape = (k, l, i // groups, o)
        std = (2 / (k * l * i // groups)) ** 0.5
        self.weight = Tensor(init.normal("weight", shape, std), requires_grad=True)
        self.bias = Tensor(init.zeros("bias", (o,)), requires_grad=True) if bias else None
        self.how = (stride, padding, dilation, groups)

    def __call__(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, *self.how)


class BatchNorm(Module):
    """Each channel of x with mean 0 and variance 1, then times weight plus bias.   x: [..., c].

    In training by the batch's own moments, and running_mean and running_var follow them:
    running = (1 - momentum) · running + momentum · batch, the variance divided by n - 1 there (and
    by n where the batch itself is normalised), as in PyTorch. In evaluation by the running ones.

    A step's batch counts once: called again with a draw of the same step and rows, as happens when
    a checkpoint recomputes, the layer leaves the running moments alone. Micro-batches are other
    rows of the step, and each counts.

    total: adds up arrays over the ranks whose rows make one batch (parallel/batch_norm.py).
    """

    def __init__(self, init: Init, c: int, momentum: float = 0.1, gain: float = 1.0) -> None:
        self.weight = Tensor(gain * init.ones("weight", (c,)), requires_grad=True)
        self.bias = Tensor(init.zeros("bias", (c,)), requires_grad=True)
        self.running_mean = Tensor(init.zeros("running_mean", (c,)))
        self.running_var = Tensor(init.ones("running_var", (c,)))
        self.momentum = momentum
        self.total: Total = alone
        self.step: tuple[int, int] | None = None  # the last one seen, and which of its rows
        self.rows: frozenset[range] = frozenset()

    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        if draw is None:
            running = self.running_mean.data, self.running_var.data
            return normalize(x, self.weight, self.bias, *running)
        z, moments = batch_norm(x, self.weight, self.bias, EPS, self.total)
        if self._is_new(draw):
            self._follow(moments)
        return z

    def _is_new(self, draw: Draw) -> bool:
        if self.step != (draw.seed, draw.step):
            self.step, self.rows = (draw.seed, draw.step), frozenset()
        if draw.rows in self.rows:
            return False
        self.rows |= {draw.rows}
        return True

    def _follow(self, moments: Moments) -> None:
        n, mean, variance = moments
        for running, batch in (
            (self.running_mean.data, mean),
            (self.running_var.data, variance * (n / array_module(n).maximum(n - 1, 1))),
        ):
            running *= 1 - self.momentum
            running += (self.momentum * batch).astype(running.dtype)
