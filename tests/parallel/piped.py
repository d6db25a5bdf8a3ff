"""A model with all that makes pipelines hard, trained on one rank and on several stages."""

import itertools
from functools import cache

import numpy as np

from minipar.nn import Dropout, Embedding, LayerNorm, Linear, Module, Piece, chain
from minipar.ops import cross_entropy, linear, tanh
from minipar.optim import SGD, AdamW, clip_grad_norm
from minipar.parallel.pipeline_strategy import PipelineParallel
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.random import Draw, Init
from minipar.tensor import Tensor

STEPS, CLIP, WIDTH, CLASSES = 10, 0.2, 6, 5


class Layer(Module):
    """x: the stream and what it began with, which all layers look at; and the ids."""

    def __init__(self, init):
        self.norm, self.linear = LayerNorm(init / "n", WIDTH), Linear(init / "l", WIDTH, WIDTH)
        self.dropout = Dropout(init / "dropout", 0.25)

    def __call__(self, x, draw=None):
        h, first = x["stream"]
        h = h + self.dropout(tanh(self.linear(self.norm(h)) + first), draw)
        return {"stream": (h, first), "ids": x["ids"]}


class Net(Module):
    """Ids -> logits: a table that both ends use, a frozen weight, dropout; dicts and tuples."""

    def __init__(self, layers=4):
        init = Init(0, np.float64)
        self.table = Embedding(init / "table", CLASSES, WIDTH, std=0.5)
        self.layers = [Layer(init / "layers" / n) for n in range(layers)]
        self.frozen = Tensor(init.normal("frozen", (WIDTH, WIDTH), 0.5))
        self.out = Linear(init / "out", WIDTH, WIDTH, std=0.5)

    def __call__(self, ids, draw=None):
        return chain(self.pieces(), ids, draw)

    def pieces(self):
        end = Piece(self.end, self.out, self.frozen, self.table)
        return [Piece(self.begin, self.table), *self.layers, end]

    def begin(self, ids, draw):
        h = self.table(ids)
        return {"stream": (h, tanh(h)), "ids": ids}

    def end(self, x, draw):
        h, first = x["stream"]
        h = tanh(self.out(h) @ self.frozen) + first + self.table(x["ids"])
        return linear(h, self.table.weight.T)


def deep():
    return Net(layers=14)


def momentum(named):
    return SGD(named, lr=0.1, momentum=0.9)


def adamw(named):
    return AdamW(named, lr=0.01, weight_decay=0.5, decay_vectors=False)


def batch(step, rows):
    dice = np.random.default_rng(step)
    return dice.integers(0, CLASSES, (rows, 3)), dice.integers(0, CLASSES, (rows, 3))


def gradients(named):
    """Copies, by name."""
    return {f"gradient {n}": x.grad.copy() for n, x in named if x.grad is not None}


@cache
def on_one_rank(rows=13, make=momentum, build=Net, batch=batch, cuts=None, steps=STEPS):
    """Losses, norms, the last gradients, weights, optimizer state: of plain training.

    cuts: of the batch into micro-batches, where that makes a difference; None: whole.
    """
    model = build()
    optimizer, found = make(model.named_parameters()), {}
    cuts = (0, rows) if cuts is None else cuts
    for step in range(steps):
        x, y = batch(step, rows)
        optimizer.zero_grad()
        found[f"loss {step}"] = np.zeros(())
        for start, stop in itertools.pairwise(cuts):
            z = model(x[start:stop], Draw(0, step, range(start, stop)))
            loss = cross_entropy(z, y[start:stop]) * ((stop - start) / rows)
            loss.backward()
            found[f"loss {step}"] += loss.item()
        last = gradients(model.named_parameters())
        if step % 2:  # clipping would hide a factor
            found[f"norm {step}"] = np.array(clip_grad_norm(model.parameters(), CLIP))
        optimizer.step()
    return found | last | model.state_dict() | optimizer.state_dict()


def on_stages(group, schedule, m, rows=13, make=momentum, build=Net, **options):
    """The same on the stages of a pipeline, with m micro-batches."""
    batch_of, steps = options.pop("batch", batch), options.pop("steps", STEPS)
    pipeline = Pipeline(build(), group, cross_entropy, schedule, **options)
    strategy, found = PipelineParallel(pipeline, make), {}
    for step in range(steps):
        x, y = batch_of(step, rows)
        strategy.zero_grad()
        parts = micro_batches(x, y, Draw(0, step, range(rows)), m)
        found[f"loss {step}"] = np.array(pipeline.train(parts))
        strategy.sync_gradients()
        last = gradients(pipeline.stage.named_parameters())
        if step % 2:
            found[f"norm {step}"] = np.array(strategy.clip(CLIP))
        strategy.step()
    found |= last | strategy.state_dict()
    with strategy.whole() as model:
        return found | model.state_dict()


def furthest(found, wanted):
    """The largest difference. A gradient may be missing: another stage has it."""
    assert {n for n in wanted if not n.startswith("gradient")} <= found.keys() <= wanted.keys()
    return max(float(np.abs(found[n] - wanted[n]).max()) for n in found)
