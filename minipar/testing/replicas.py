"""What the inexact strategies are by definition: one process that holds all replicas.

Local SGD and compressed gradients do not give what one rank would with the whole batch. They give
what is written here: p nets side by side in one process, no message, no group, plain NumPy. Each
parallel form must give the same numbers.

Letters: p replicas, n numbers in all gradients of a replica; a stack is [p, ...], one for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from minipar.array import Array
from minipar.nn import BatchNorm
from minipar.ops import cross_entropy
from minipar.ops.batch_norm import EPS
from minipar.optim import Optimizer, clip_grad_norm
from minipar.random import normal
from minipar.tensor import Tensor
from minipar.testing.training import (
    STEPS,
    Case,
    Net,
    accumulate,
    batch,
    gradients_of,
    outcome,
    set_lr,
)

AddUp = Callable[[list[Array]], list[Array]]  # a stack for each parameter -> about their sums


def local_sgd(case: Case, p: int, every: int | None) -> list[dict[str, Array]]:
    """Replicas that train apart, and are averaged every so many steps and at the end."""
    nets = [Net(case.batch_norm) for _ in range(p)]
    optimizers = [case.make_optimizer(net.named_parameters()) for net in nets]
    rows = [case.rows_of(r, p) for r in range(p)]
    norms: list[list[float]] = [[] for _ in range(p)]
    for step in range(STEPS):
        for r, net in enumerate(nets):
            net.zero_grad()
            accumulate(net, case, step, rows[r])
            norms[r].append(clip_grad_norm(net.parameters(), case.max_norm))
            set_lr(optimizers[r], step)
            optimizers[r].step()
        if step == STEPS - 1 or (every and (step + 1) % every == 0):
            _average(nets, optimizers, [len(part) / case.rows for part in rows])
    return [
        outcome(net, optimizer.state_dict(), gradients_of(net), norms[r])
        for r, (net, optimizer) in enumerate(zip(nets, optimizers))
    ]


def _average(nets: list[Net], optimizers: list[Optimizer], shares: Sequence[float]) -> None:
    """Weights, running moments and optimizer state become their mean; frozen weights are equal."""
    held = [
        [x.data for x in net.parameters()]
        + [a for name in optimizer.state for a in optimizer.state[name].values()]
        for net, optimizer in zip(nets, optimizers)
    ]
    for same in zip(*held):
        mean = sum(share * a for share, a in zip(shares, same))
        for a in same:
            a[...] = mean


def compressed(case: Case, p: int, add_up: AddUp) -> list[dict[str, Array]]:
    """Replicas that all get add_up of the gradients of all, each by its share."""
    nets = [Net(case.batch_norm) for _ in range(p)]
    optimizers = [case.make_optimizer(net.named_parameters()) for net in nets]
    rows = [case.rows_of(r, p) for r in range(p)]
    norms: list[float] = []
    for step in range(STEPS):
        for net in nets:
            net.zero_grad()
        _backward(nets, case, step, rows)
        trained = [[x for x in net.parameters() if x.requires_grad] for net in nets]
        stacks = [np.stack([x.grad for x in same]) for same in zip(*trained)]
        for same, total in zip(zip(*trained), add_up(stacks)):
            for x in same:
                x.grad = total.copy()
        for net, optimizer in zip(nets, optimizers):
            norm = clip_grad_norm(net.parameters(), case.max_norm)
            set_lr(optimizer, step)
            optimizer.step()
        norms.append(norm)
    return [
        outcome(net, optimizer.state_dict(), gradients_of(net), norms)
        for net, optimizer in zip(nets, optimizers)
    ]


def _backward(nets: list[Net], case: Case, step: int, rows: list[range]) -> None:
    """Each replica's part of the gradient of the mean over all rows, which batch norms see."""
    shares = [len(part) / case.rows for part in rows]
    if not case.batch_norm:
        for net, part, share in zip(nets, rows, shares):
            accumulate(net, case, step, part)
            for x in net.parameters():
                x.grad = None if x.grad is None else x.grad * share
        return
    batches = [batch(step, part) for part in rows]
    h = _one_batch_norm([net.norm for net in nets], [n.up(b[0]) for n, b in zip(nets, batches)])
    losses = [
        cross_entropy(net.head(own, draw), y) * share
        for net, own, (_, y, draw), share in zip(nets, h, batches, shares)
    ]
    _sum(losses).backward()


def _one_batch_norm(norms: Sequence[BatchNorm | None], xs: list[Tensor]) -> list[Tensor]:
    """The rows of all replicas with mean 0 and variance 1, each part by its replica's gain."""
    n = sum(len(x) for x in xs)
    mean = _sum([x.sum(axis=0) for x in xs]) * (1 / n)
    centred = [x - mean for x in xs]
    variance = _sum([(c * c).sum(axis=0) for c in centred]) * (1 / n)
    z = []
    for norm, c in zip(norms, centred):
        assert norm is not None
        z.append(c * (variance + EPS) ** -0.5 * norm.weight + norm.bias)
        for running, now in (
            (norm.running_mean.data, mean.data),
            (norm.running_var.data, variance.data * n / (n - 1)),
        ):
            running += norm.momentum * (now - running)
    return z


def _sum(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


# -- sums for fewer bytes: a stack for each parameter in, a sum for each out -------------------


def float16() -> AddUp:
    """Each number rounded to float16, and so is each sum."""

    def add_up(stacks: list[Array]) -> list[Array]:
        totals = [stack.astype(np.float16).astype(stack.dtype).sum(axis=0) for stack in stacks]
        return [total.astype(np.float16).astype(total.dtype) for total in totals]

    return add_up


def int8(block: int) -> AddUp:
    """Each number a multiple of its block's largest / 127, and so is each sum."""

    def rounded(x: Array) -> Array:
        scale = np.float64(np.float32(np.abs(x).max() / 127)) or 1.0
        return np.rint(x / scale) * scale

    def add_up_flat(x: Array) -> Array:
        blocks = range(0, x.shape[1], block)
        own = [[rounded(row[i : i + block]) for i in blocks] for row in x]
        return np.concatenate([rounded(sum(parts)) for parts in zip(*own)])

    return lambda stacks: _flat(stacks, add_up_flat)


def top_k(keep: float) -> AddUp:
    """Each replica gives the k largest of what it has, and keeps the rest for the next time."""
    kept = np.zeros(())

    def add_up_flat(x: Array) -> Array:
        nonlocal kept
        have = kept + x
        order = np.argsort(-np.abs(have), axis=1)[:, : math.ceil(keep * x.shape[1])]
        given = np.zeros_like(have)
        np.put_along_axis(given, order, np.take_along_axis(have, order, axis=1), axis=1)
        kept = have - given
        return given.sum(axis=0)

    return lambda stacks: _flat(stacks, add_up_flat)


def powersgd(rank: int) -> AddUp:
    """The sum of all, projected on the span of (sum · v); v: what that gave in the step before.

    Only spans count, so no basis has to be the same as in the parallel form; and only the sum of
    what the replicas keep, so one memory stands for all.
    """
    memory: dict[int, tuple[Array, Array]] = {}

    def add_up(stacks: list[Array]) -> list[Array]:
        totals, number = [stack.sum(axis=0) for stack in stacks], 0
        for i, g in enumerate(totals):
            if g.ndim < 2 or sum(g.shape) * rank >= g.size:
                continue
            drawn = normal(0, f"powersgd.{number}", (g.shape[1], rank))
            error, v = memory.get(number, (np.zeros_like(g), drawn))
            a = g + error
            span = np.linalg.svd(a @ v, full_matrices=False)[0]
            totals[i] = span @ span.T @ a
            memory[number] = a - totals[i], a.T @ span
            number += 1
        return totals

    return add_up


def _flat(stacks: list[Array], add_up: Callable[[Array], Array]) -> list[Array]:
    """add_up of all parameters as one vector.   add_up: [p, n] -> [n]."""
    x = np.concatenate([stack.reshape(len(stack), -1) for stack in stacks], axis=1)
    cuts = np.cumsum([stack[0].size for stack in stacks])[:-1]
    return [part.reshape(stack.shape[1:]) for part, stack in zip(np.split(add_up(x), cuts), stacks)]
