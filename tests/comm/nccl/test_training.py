"""Training on ranks of nccl (the fake one, on the stand-in) gives the weights of one rank.

The stand-in finds what a strategy does to memory in two streams in no particular order.
"""

import numpy as np
import pytest

import minipar
from minipar.array import to_numpy
from minipar.models import GPT
from minipar.ops import cross_entropy
from minipar.optim import AdamW
from minipar.parallel.pipeline_strategy import PipelineParallel
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.stages import balanced
from minipar.random import Init
from minipar.testing.pipelines import batch
from tests.comm.gpus import on_gpus
from tests.parallel.test_on_device import FORMS, train
from tests.parallel.test_tensor_on_device import gradients


@pytest.mark.parametrize("form", FORMS)
def test_replicas_equal_one_rank_in_host_memory(form, cupy):
    one = minipar.run(train, 1, args=(form, np))[0]
    for state in on_gpus(train, 2, form, cupy):
        assert all(np.abs(state[name] - one[name]).max() < 1e-12 for name in one)


@pytest.mark.parametrize("sequence", [False, True])
def test_shared_layers_have_the_gradients_of_one_rank(sequence, cupy):
    wanted = gradients(np, sequence)
    for found in on_gpus(lambda group: gradients(cupy, sequence, group), 2):
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_a_pipeline_has_the_weights_of_one_rank(schedule, cupy):
    model = gpt(np)
    optimizer = AdamW(model.named_parameters(), lr=0.01)
    for step in range(2):
        x, y, draw = batch(step)
        model.zero_grad()
        cross_entropy(model(x, draw), y).backward()
        optimizer.step()
    wanted = model.state_dict()
    for found in on_gpus(on_stages, 2, schedule, cupy):
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


def gpt(xp):
    return GPT(Init(0, np.float64, xp=xp), 7, 6, layers=2, d=8, heads=2, dropout=0.25)


def on_stages(group, schedule, xp):
    model = gpt(xp)
    cuts = balanced([1.0] * len(model.pieces()), group.size)
    pipeline = Pipeline(model, group, cross_entropy, schedule, cuts)
    strategy = PipelineParallel(pipeline, lambda named: AdamW(named, lr=0.01))
    for step in range(2):
        strategy.zero_grad()
        pipeline.train(micro_batches(*batch(step), 4))
        strategy.sync_gradients()
        strategy.step()
    with strategy.whole() as whole:
        return {name: to_numpy(array) for name, array in whole.state_dict().items()}
