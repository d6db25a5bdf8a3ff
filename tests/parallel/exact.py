"""The comparison that every exact way of sharing the work must pass: it equals one rank.

The one rank is written here in plain steps, with nothing of parallel/.
"""

from __future__ import annotations

import numpy as np

import minipar
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy, tanh
from minipar.optim import SGD, Adam
from minipar.random import Init
from minipar.tensor import Tensor

STEPS, TOLERANCE = 10, 1e-10
EVEN, UNEVEN = 12, 13  # rows of the global batch


class Net(Module):
    """A weight that is used twice, one that is frozen, biases, and a buffer."""

    def __init__(self, seed=0):
        init = Init(seed, np.float64)
        self.up, self.down = Linear(init / "up", 5, 6), Linear(init / "down", 6, 3)
        self.twice, self.frozen = Linear(init / "twice", 6, 6), Linear(init / "frozen", 6, 6)
        self.frozen.weight.requires_grad = False
        self.moment = Tensor(np.full(3, float(seed)))

    def __call__(self, x):
        h = tanh(self.twice(tanh(self.up(x))))
        return self.down(tanh(self.twice(h)) + self.frozen(h)) + self.moment


def momentum(named):
    return SGD(named, lr=0.1, momentum=0.9)


def adam(named):
    return Adam(named, lr=0.01)


def batches(rows):
    dice = np.random.default_rng(0)
    return [(dice.normal(size=(rows, 5)), dice.integers(0, 3, rows)) for _ in range(STEPS)]


def cut(rows, rank, ranks):
    """This rank's rows: unevenly many, if they cannot be even."""
    edges = [rows * r // ranks for r in range(ranks + 1)]
    if rows % ranks and ranks > 1:
        edges[1] = 1
    return slice(edges[rank], edges[rank + 1])


def everything(model, optimizer):
    """Weights, gradients and optimizer state by name."""
    named = list(model.named_parameters())
    grads = {f"grad of {n}": x.grad.copy() for n, x in named if x.requires_grad}
    return model.state_dict() | grads | optimizer.state_dict()


def one_rank(make_optimizer, rows):
    model = Net()
    optimizer = make_optimizer(model.named_parameters())
    for x, y in batches(rows):
        optimizer.zero_grad()
        cross_entropy(model(Tensor(x)), y).backward()
        optimizer.step()
    return everything(model, optimizer)


def train(group, strategy, make_optimizer, rows, options):
    """The same with a strategy, on one of many ranks."""
    options = dict(options)
    model_of, cut_of = options.pop("model_of", lambda rank: Net()), options.pop("cut_of", cut)
    model = model_of(group.rank)
    parallel = strategy(model, group, make_optimizer, **options)
    mine = cut_of(rows, group.rank, group.size)
    for x, y in batches(rows):
        parallel.zero_grad()
        if hasattr(parallel, "announce"):
            parallel.announce(len(y[mine]))
        cross_entropy(model(Tensor(x[mine])), y[mine]).backward()
        parallel.sync_gradients(len(y[mine]))
        parallel.step()
    return everything(model, parallel.optimizer)


def largest_error(strategy, p, make_optimizer=momentum, rows=UNEVEN, backend="local", **options):
    """The largest difference from one rank of any number on any rank."""
    one = one_rank(make_optimizer, rows)
    arguments = (strategy, make_optimizer, rows, options)
    states = minipar.run(train, p, args=arguments, backend=backend)
    assert all(state.keys() == one.keys() for state in states)
    for state in states:  # replicas agree to the bit
        if not all((state[name] == states[0][name]).all() for name in one):
            return np.inf
    return max(np.abs(state[name] - one[name]).max() for state in states for name in one)
