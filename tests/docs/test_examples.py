"""The examples of extending.md and own_model.md, held against more than what the pages print."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from minipar.testing import PROMISES, PromiseBroken, check_transport
from minipar.testing.gradcheck import gradcheck

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("p", [1, 3])
def test_the_transport_over_queues_keeps_every_promise(p):
    own = example("own_transport")
    assert own.on_threads(own.QueueTransport, p, check_transport) == [None] * p


def test_the_forgetful_transport_breaks_its_promise_on_every_rank():
    own = example("own_transport")
    promises = [p for p in PROMISES if p.__name__ == "a_sent_array_may_change"]
    ends = own.on_threads(own.Forgetful, 1, lambda g: check_transport(g, promises))
    assert isinstance(ends[0], PromiseBroken)


def test_recursive_doubling_is_the_sum_by_its_own_link():
    from minipar import run

    own = example("own_collective")
    totals = run(
        lambda g: g.all_reduce(np.arange(5) * 2**g.rank, algorithm=own.recursive_doubling), 7
    )
    assert all((total == np.arange(5) * 127).all() for total in totals)


def test_the_op_of_ones_own_has_the_right_gradient():
    gradcheck(example("own_model").square, np.random.default_rng(0).normal(size=(4, 3)))
