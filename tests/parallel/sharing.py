"""A model with all that makes sharing hard, trained on one rank and on many."""

from functools import cache

import numpy as np

from minipar.nn import BatchNorm, LayerNorm, Linear, Module
from minipar.ops import cross_entropy, linear, tanh
from minipar.optim import SGD, AdamW, clip_grad_norm
from minipar.parallel.batch_norm import synchronise
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.random import Draw, Init
from minipar.tensor import Tensor

ROWS, STEPS, CLIP = 12, 10, 0.2


class Layer(Module):
    def __init__(self, init, shared):
        self.norm = LayerNorm(init / "norm", 7)
        self.linear = Linear(init / "linear", 7, 7, std=0.5)
        self.shared = shared

    def __call__(self, x):
        return x + tanh(self.linear(self.norm(x)) + self.shared)


class Net(Module):
    """Vectors and matrices of odd sizes; tied, frozen and unused parameters; running moments."""

    def __init__(self, seed=0):
        init = Init(seed, np.float64)
        self.up = Linear(init / "up", 5, 7, bias=False, std=0.5)  # a batch norm follows
        self.batch_norm = BatchNorm(init / "batch_norm", 7)
        shared = Tensor(init.normal("shared", (7,), 0.1), requires_grad=True)
        alone = Tensor(init.normal("alone", (7,), 0.1), requires_grad=True)
        self.layers = [Layer(init / n, s) for n, s in enumerate((shared, alone, shared))]
        self.unused = Tensor(init.ones("unused", (3, 3)), requires_grad=True)
        self.frozen = Tensor(init.ones("frozen", (7,)))
        self.scale = Tensor(init.ones("scale", ()), requires_grad=True)

    def __call__(self, x, draw=None):
        h = self.up(x) * self.frozen
        if draw is not None:
            h = self.batch_norm(h, draw)
        for layer in self.layers:
            h = layer(h)
        return linear(h, self.up.weight.T) * self.scale  # tied


def adamw(named):
    return AdamW(named, lr=0.01, weight_decay=0.5, decay_vectors=False)


def momentum(named):
    return SGD(named, lr=0.1, momentum=0.9)


def zero2(model, group, make):  # in several buckets
    return Zero2(model, group, make, bucket_bytes=300)


STRATEGIES = (Zero1, zero2, Zero3)


def batch(step):
    dice = np.random.default_rng(step)
    return dice.normal(size=(ROWS, 5)), dice.integers(0, 5, ROWS)


def draw_of(step, rows, uneven):
    """With it, batch norm is that of all ranks; their loss is over equally many rows then."""
    return None if uneven else Draw(0, step, rows)


@cache
def on_one_rank(make, uneven=False, steps=STEPS):
    """Weights and optimizer state."""
    model = Net()
    optimizer = make(model.named_parameters())
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        cross_entropy(model(Tensor(x), draw_of(step, range(ROWS), uneven)), y).backward()
        if step % 2:  # clipping would hide a factor
            clip_grad_norm(model.parameters(), CLIP)
        optimizer.step()
    return model.state_dict() | optimizer.state_dict()


def cuts_of(p, uneven):
    """Where the rows of each rank begin and end."""
    if uneven and p > 1:
        return [*range(0, 2 * p, 2), ROWS]  # two rows each, and more on the last
    return [r * ROWS // p for r in range(p + 1)]


def on_many(group, construct, make, uneven=False, micros=1, steps=range(STEPS), loaded=None):
    """As `on_one_rank`; the model of each rank begins elsewhere.

    micros: parts of this rank's rows, one backward for each.  loaded: what such a run has given.
    """
    model = Net(seed=group.rank)
    synchronise(model, group)
    sharing = construct(model, group, make)
    if loaded is not None:
        weights = {name for name, _ in model.named_parameters()}
        with sharing.whole():
            model.load_state_dict({n: a for n, a in loaded.items() if n in weights})
        sharing.load_state_dict({n: a for n, a in loaded.items() if n not in weights})
    cuts = cuts_of(group.size, uneven)
    mine = range(cuts[group.rank], cuts[group.rank + 1])
    for step in steps:
        x, y = batch(step)
        sharing.zero_grad()
        if uneven:
            sharing.announce(len(mine))

        def backward(rows, x=x, y=y, step=step):
            loss = cross_entropy(model(Tensor(x[rows]), draw_of(step, mine, uneven)), y[rows])
            (loss * (len(y[rows]) / len(mine))).backward()

        *early, last = np.array_split(np.arange(mine.start, mine.stop), micros)
        with sharing.no_sync():
            for rows in early:
                backward(rows)
        backward(last)
        sharing.sync_gradients(len(mine))
        if step % 2:
            sharing.clip(CLIP)
        sharing.step()
    with sharing.whole():
        weights = model.state_dict()
    return weights | sharing.state_dict()


def difference(state, other):
    """The largest, nan if there is one; the names must be the same."""
    assert state.keys() == other.keys()
    return max(float(np.abs(state[name] - other[name]).max()) for name in other)
