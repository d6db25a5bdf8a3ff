"""The optimizer's state, cut over servers, is that of one optimizer, and goes back the same way."""

import numpy as np
import pytest

import minipar
from minipar.errors import ShapeMismatch, UsageError
from minipar.nn import Module
from minipar.optim import SGD
from minipar.parallel.parameter_server import SYNC, ParameterServer, Roles, serve
from minipar.tensor import Tensor

SHAPES = {"a": (7, 3), "b": (5,)}


class Two(Module):
    def __init__(self):
        self.a, self.b = (Tensor(np.zeros(s), requires_grad=True) for s in SHAPES.values())


def momentum(named):
    return SGD(named, lr=1.0, momentum=0.5)


def on_worker(work, servers):
    """What work(strategy) gives on the one worker; the weights are cut into slices."""

    def rank(world):
        roles = Roles(world, servers)
        if roles.is_server:
            serve(roles, Two(), momentum, SYNC, slice_bytes=64)
            return None
        with ParameterServer(Two(), roles, momentum, slice_bytes=64) as strategy:
            return work(strategy)

    return minipar.run(rank, 1 + servers)[0]


def gradients(step):
    return {n: np.random.default_rng([step, *s]).normal(size=s) for n, s in SHAPES.items()}


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_it_comes_together_as_that_of_one_optimizer(servers):
    model = Two()
    alone = momentum(model.named_parameters())

    def work(strategy):
        for step in range(3):
            strategy.pull()
            strategy.push(gradients(step))
            strategy.clip(np.inf)
            strategy.step()
        strategy.pull()
        return strategy.state_dict()

    for step in range(3):
        for name, g in gradients(step).items():
            getattr(model, name).grad = g
        alone.step()
    found, expected = on_worker(work, servers), alone.state_dict()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-14)


@pytest.mark.parametrize("servers", [1, 3])
def test_what_is_given_back_comes_again(servers):
    names = on_worker(lambda strategy: strategy.state_dict(), 1)
    given = {n: np.random.default_rng(len(n)).normal(size=a.shape) for n, a in names.items()}
    given["step"] = np.asarray(5)

    def work(strategy):
        strategy.load_state_dict(given)
        return strategy.state_dict()

    found = on_worker(work, servers)
    assert found.keys() == given.keys()
    assert all((found[name] == array).all() for name, array in given.items())


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda state: state.popitem(), UsageError, "missing"),
        (lambda state: state.update(c=np.zeros(1)), UsageError, r"unexpected \['c'\]"),
        (lambda state: state.update({next(iter(set(state) - {"step"})): np.zeros(1)}),
         ShapeMismatch, "in what was loaded"),
    ],
)  # fmt: skip
def test_state_of_something_else_is_refused(change, error, says):
    def work(strategy):
        state = dict(strategy.state_dict())
        change(state)
        with pytest.raises(error, match=says):
            strategy.load_state_dict(state)

    on_worker(work, 2)
