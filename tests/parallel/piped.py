"""A model with all that makes pipelines hard, trained on one rank and on several stages."""

from functools import cache

import numpy as np

from minipar.nn import BatchNorm, Dropout, Embedding, LayerNorm, Linear, Module, Piece, chain
from minipar.ops import cross_entropy, linear, tanh
from minipar.optim import SGD, AdamW, clip_grad_norm
from minipar.parallel.pipelined import Pipeline, PipelineParallel, micro_batches
from minipar.random import Draw, Init
from minipar.tensor import Tensor

STEPS, CLIP, WIDTH, CLASSES = 10, 0.2, 6, 5


class Layer(Module):
    """x: the stream, and what it began with, which all layers look at; a tuple travels."""

    def __init__(self, init):
        self.norm, self.linear = (
            LayerNorm(init / "norm", WIDTH),
            Linear(init, WIDTH, WIDTH, std=0.5),
        )
        self.dropout = Dropout(init / "dropout", 0.25)

    def __call__(self, x, draw=None):
        h, first = x["stream"]
        h = h + self.dropout(tanh(self.linear(self.norm(h)) + first), draw)
        return {"stream": (h, first), "ids": x["ids"]}


class Net(Module):
    """Ids -> logits: a table that the ends share, a frozen weight, dropout, nested activations."""

    def __init__(self, layers=8):
        init = Init(0, np.float64)
        self.table = Embedding(init / "table", CLASSES, WIDTH, std=0.5)
        self.layers = [Layer(init / "layers" / n) for n in range(layers)]
        self.frozen = Tensor(init.normal("frozen", (WIDTH, WIDTH), 0.5))
        self.out = Linear(init / "out", WIDTH, WIDTH, std=0.5)

    def __call__(self, ids, draw=None):
        return chain(self.pieces(), ids, draw)

    def pieces(self):
        return [
            Piece(self.begin, self.table),
            *self.layers,
            Piece(self.end, self.out, self.frozen, self.table),
        ]

    def begin(self, ids, draw):
        h = self.table(ids)
        return {"stream": (h, tanh(h)), "ids": ids}

    def end(self, x, draw):
        h, first = x["stream"]
        h = tanh(self.out(h) @ self.frozen) + first + self.table(x["ids"])
        return linear(h, self.table.weight.T)


def momentum(named):
    return SGD(named, lr=0.1, momentum=0.9)


def adamw(named):
    return AdamW(named, lr=0.01, weight_decay=0.5, decay_vectors=False)


def batch(step, rows):
    dice = np.random.default_rng(step)
    return dice.integers(0, CLASSES, (rows, 3)), dice.integers(0, CLASSES, (rows, 3))


@cache
def on_one_rank(make=adamw, rows=13, steps=STEPS, build=Net):
    """Losses, norms, gradients, weights, optimizer state: of plain training, in one batch."""
    model = build()
    optimizer, found = make(model.named_parameters()), {}
    for step in range(steps):
        x, y = batch(step, rows)
        optimizer.zero_grad()
        loss = cross_entropy(model(x, Draw(0, step, range(rows))), y)
        loss.backward()
        found[f"loss {step}"] = np.array(loss.item())
        grads = {f"grad {n}": p.grad.copy() for n, p in model.named_parameters() if p.requires_grad}
        if step % 2:  # clipping would hide a factor
            found[f"norm {step}"] = np.array(clip_grad_norm(model.parameters(), CLIP))
        optimizer.step()
    return found | grads | model.state_dict() | optimizer.state_dict()


def on_stages(group, schedule, micros, make=adamw, rows=13, steps=STEPS, **options):
    """The same on the stages of a pipeline."""
    build = options.pop("build", Net)
    dp, wrap = options.pop("dp", None), options.pop("wrap", lambda model: model)
    model = wrap(build())
    pipeline = Pipeline(model, group, cross_entropy, schedule, **options)
    strategy, found = PipelineParallel(pipeline, make, dp), {}
    for step in range(steps):
        x, y = batch(step, rows)
        strategy.zero_grad()
        parts = micro_batches(x, y, Draw(0, step, range(rows)), micros)
        found[f"loss {step}"] = np.array(pipeline.train(parts))
        strategy.sync_gradients()
        grads = {
            f"grad {n}": x.grad.copy()
            for n, x in pipeline.stage.named_parameters()
            if x.requires_grad
        }
        if step % 2:
            found[f"norm {step}"] = np.array(strategy.clip(CLIP))
        strategy.step()
    found |= grads | strategy.state_dict()
    with strategy.whole() as whole:
        return found | whole.state_dict()


def furthest(found, wanted):
    """The largest difference; a gradient may be missing, for another stage has it."""
    assert {n for n in wanted if not n.startswith("grad")} <= found.keys()
    return max(float(np.abs(found[n] - wanted[n]).max()) for n in found)
