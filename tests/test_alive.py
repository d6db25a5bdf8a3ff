"""What is alive against sums that are made by hand: shapes, formulas, and what a schedule keeps."""

from functools import partial

import numpy as np
import pytest

import minipar
from minipar.alive import KINDS, Alive
from minipar.comm.tracing import tracing
from minipar.models import GPT
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy, mse, relu
from minipar.optim import AdamW
from minipar.parallel.activations import kept_by
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.random import Draw, Init
from minipar.spans import at_step, span
from minipar.tensor import Tensor
from minipar.trace.trace_file import load

D, LAYERS, MICROS, ROWS = 8, 8, 8, 6
WEIGHTS = 4 * LAYERS * (D * D + D)
ARRAY = 4 * ROWS * D  # of a micro-batch, between two layers


class Layer(Module):
    """Keeps its x and its z until backward, and nothing else."""

    def __init__(self, n):
        self.linear = Linear(Init() / f"{n}", D, D)

    def __call__(self, x, draw=None):
        return relu(self.linear(x))


class Chain(Module):
    def __init__(self):
        self.layers = [Layer(n) for n in range(LAYERS)]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def pieces(self):
        return self.layers


def most(folder, kind):
    """Of each rank, the most bytes of that kind."""
    at = 1 + KINDS.index(kind)
    return [max(row[at] for row in rank.held) for rank in load(folder).ranks]


# -- weights, gradients, optimizer state --------------------------------------------------------


def data_parallel_step(group, folder, strategy):
    with tracing(group, folder):
        model = Chain()
        parallel = strategy(model, group, partial(AdamW, lr=1e-3))
        parallel.zero_grad()
        parallel.announce(ROWS)
        x = Tensor(np.ones((ROWS, D), np.float32))
        with span("backward"):
            mse(model(x), x.data).backward()
        parallel.sync_gradients(ROWS)
        with span("optimizer"):
            parallel.step()


def bytes_of(folder):
    return [most(folder, kind)[0] for kind in ("weights", "gradients", "optimizer")]


@pytest.mark.parametrize(
    ("strategy", "shards"),
    [
        (DataParallel, (1, 1, 1)),
        (BucketedDataParallel, (1, 1, 1)),
        (Zero1, (1, 1, 2)),
        (Zero2, (1, 2, 2)),
        (Zero3, (2, 2, 2)),
    ],
)
def test_what_is_sharded_is_there_in_parts(strategy, shards, tmp_path):
    minipar.run(data_parallel_step, 2, args=(tmp_path, strategy))
    expected = [n / p for n, p in zip((WEIGHTS, WEIGHTS, 2 * WEIGHTS), shards)]
    assert bytes_of(tmp_path) == pytest.approx(expected, abs=8 * (LAYERS + 2))  # a ballot, numbers


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [BucketedDataParallel, Zero1, Zero2, Zero3])
def test_memory_between_processes_counts_once(strategy, tmp_path):
    for backend in ("local", "process"):
        folder = tmp_path / backend
        minipar.run(data_parallel_step, 2, args=(folder, strategy), backend=backend)
    assert bytes_of(tmp_path / "local") == bytes_of(tmp_path / "process")


# -- activations ------------------------------------------------------------------------------


def pipeline_step(group, folder, schedule, recompute):
    with tracing(group, folder):
        pipe = Pipeline(Chain(), group, mse, schedule, recompute=recompute)
        x = np.ones((MICROS * ROWS, D), np.float32)
        pipe.train(micro_batches(Tensor(x), x, Draw(0, 0, range(len(x))), MICROS))


@pytest.mark.parametrize(
    ("schedule", "stored"), [("gpipe", lambda s: MICROS), ("1f1b", lambda s: 4 - s)]
)
@pytest.mark.parametrize("recompute", [False, True])
def test_a_stage_keeps_as_many_micro_batches_as_its_schedule(schedule, stored, recompute, tmp_path):
    """What comes in and what each of its layers gives; with recomputation, that of one and the
    inputs of the others. The first stage has its x in the batch, and the last one a loss.
    """
    minipar.run(pipeline_step, 4, args=(tmp_path, schedule, recompute))
    layers = LAYERS // 4
    for s, found in enumerate(most(tmp_path, "activations")[:-1]):
        entering = 1 if s else 0
        if recompute:
            assert found == (stored(s) * entering + layers) * ARRAY
        else:
            assert found == stored(s) * (entering + layers) * ARRAY


def test_closures_of_a_gpt_hold_what_the_forecast_finds_in_them(tmp_path):
    """With attention, norms, gelu, embeddings; twice, the second one with more rows."""
    model = GPT(Init(), vocab=7, block=6, layers=2, d=8, heads=2, dropout=0.1)
    counted = []

    def work(group):
        with tracing(group, tmp_path) as tape:
            for rows in (2, 5):
                ids = np.ones((rows, 6), np.int64)
                loss = cross_entropy(model(ids, Draw(0, 0, range(rows))), ids)
                counted.append(tape.alive.nbytes[-1])
                counted.append(kept_by(loss, model.parameters()))
                loss.backward()
                counted.append(tape.alive.nbytes[-1])

    minipar.run(work, 1)
    for alive, kept, left in (counted[:3], counted[3:]):
        assert alive == kept > 10_000
        assert left <= 2 * 5 * 6 * 8  # the ids are held by who made them


def test_of_many_steps_some_count(tmp_path):
    model, found = Chain(), []

    def work(group):
        with tracing(group, tmp_path) as tape:
            for step in range(22):
                at_step(step)
                loss = model(Tensor(np.ones((ROWS, D), np.float32))).sum()
                found.append(tape.alive.nbytes[-1] > 0)
                loss.backward()

    minipar.run(work, 1)
    assert [n for n, some in enumerate(found) if some] == [*range(11), 20]


# -- the account ------------------------------------------------------------------------------


def test_an_array_counts_once_while_somebody_holds_it():
    alive, x = Alive(), np.zeros(100, np.float32)
    alive.note(0, x[10:20])
    alive.note(1, x)  # the first word counts
    assert alive.nbytes == [400, 0, 0, 0, 0]
    view = x[:5]
    del x
    assert alive.nbytes[0] == 400
    del view
    assert alive.nbytes[0] == 0


def test_memory_between_ranks_counts_where_its_owner_says_so():
    alive, segment = Alive(), np.frombuffer(bytearray(80), np.float64)
    x = segment[2:4]
    alive.note(0, x)
    assert alive.nbytes[0] == 0
    alive.take(0, {"bucket": [x]})
    assert alive.nbytes[0] == 16


def test_nobody_is_listened_to_afterwards(tmp_path):
    model = Chain()

    def work(group):
        with tracing(group, tmp_path) as tape:
            model(Tensor(np.ones((ROWS, D), np.float32))).sum().backward()
            during = [len(x.listeners) for x in model.parameters()]
        return during, [len(x.listeners) for x in model.parameters()], tape.alive.nbytes

    ((during, after, _),) = minipar.run(work, 1)
    assert set(during) == {1} and set(after) == {0}
