"""Weights are there while their layer works, and at no other time."""

import numpy as np
import pytest

import minipar
from minipar import cost, no_grad
from minipar.events import recording
from minipar.graph import leaves
from minipar.models import GPT
from minipar.models.generate import generate
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy, tanh
from minipar.optim import Adam
from minipar.parallel.memory import Peak
from minipar.parallel.sharded_parameters import Zero3, before_backward, call_through
from minipar.parallel.units import split_parameters
from minipar.random import Draw, Init
from minipar.tensor import Tensor
from tests.parallel.sharing import Net, adamw, difference


def gpt(dropout=0.1, layers=3):
    return GPT(Init(0, np.float64), 256, block=4, layers=layers, d=8, heads=2, dropout=dropout)


def ids(step, rows=6):
    return np.random.default_rng(step).integers(0, 11, (rows, 5))


def train(group, wrap, at=slice(None), call=lambda model, x, draw: model(x, draw)):
    model = gpt()
    made = wrap(model, group)
    for step in range(3):
        x = ids(step)
        made.zero_grad()
        rows = range(6)[at]
        cross_entropy(call(model, x[at, :-1], Draw(0, step, rows)), x[at, 1:]).backward()
        if isinstance(made, Zero3):
            made.sync_gradients()
        made.step()
    if isinstance(made, Zero3):
        with made.whole():
            return model.state_dict() | made.state_dict()
    return model.state_dict() | made.state_dict()


def alone(model, group):
    return adamw(model.named_parameters())


def sharded(model, group):
    return Zero3(model, group, adamw)


def test_a_gpt_with_tied_weights_and_dropout_equals_one_rank():
    one = train(None, alone)

    def work(group):
        each = 6 // group.size
        return train(group, sharded, slice(group.rank * each, (group.rank + 1) * each))

    for p in (2, 3):
        for state in minipar.run(work, p):
            assert difference(state, one) < 1e-10


def test_layers_that_are_computed_again_in_backward():
    one = train(None, alone)
    again = minipar.run(train, 2, args=(sharded, slice(None), in_checkpoints))
    assert max(difference(state, one) for state in again) < 1e-10


def in_checkpoints(model, x, draw):
    blocks = model.blocks
    model.blocks = [lambda h, d, b=b: minipar.checkpoint(b, h, d) for b in blocks]
    z = model(x, draw)
    model.blocks = blocks
    return z


def test_weights_are_nan_outside_and_keep_their_shape():
    def work(group):
        model = Net()
        before = model.state_dict()
        sharing = Zero3(model, group, adamw)
        trained = [x for x in model.parameters() if x.requires_grad]
        assert all(np.isnan(x.data).all() for x in trained)
        assert {name: x.shape for name, x in model.named_parameters()} == {
            name: a.shape for name, a in before.items()
        }
        with pytest.raises(ValueError, match="read-only"):
            model.load_state_dict(before)
        with sharing.whole() as whole:
            assert difference(whole.state_dict(), before) == 0
            whole.load_state_dict({name: a + 1 for name, a in before.items()})
            whole(Tensor(np.ones((1, 5))))  # what drops its layers elsewhere
            assert not np.isnan(whole.up.weight.data).any()
        assert np.isnan(model.up.weight.data).all()
        with sharing.whole():
            assert difference(model.state_dict(), before) == pytest.approx(1)

    minipar.run(work, 3)


def test_evaluation_gathers_and_drops():
    def work(group, wrap):
        model = gpt(dropout=0.0)
        wrap(model, group)
        with no_grad():
            logits = model(ids(0)[:, :4]).data
        text = generate(model, b"abc", 5)
        return logits, text, np.isnan(model.norm.weight.data).all()

    ((logits, text, _),) = minipar.run(work, 1, args=(alone,))
    for found, written, dropped in minipar.run(work, 2, args=(sharded,)):
        assert (found == logits).all() and written == text and dropped


def test_a_forward_whose_backward_never_comes_leaves_nothing_stale():
    def work(group, lose):
        model = gpt()
        sharing = Zero3(model, group, adamw)
        for step in range(2):
            sharing.zero_grad()
            if lose:
                model(ids(7)[:, :4])
            x = ids(step)
            cross_entropy(model(x[:, :-1]), x[:, 1:]).backward()
            if lose:
                model(ids(8)[:, :4])
            sharing.sync_gradients()
            sharing.step()
        with sharing.whole():
            return model.state_dict()

    kept, lost = (minipar.run(work, 2, args=(lose,))[0] for lose in (False, True))
    assert difference(kept, lost) == 0


def test_a_graph_that_is_gone_through_twice():
    def work(group):
        model = gpt()
        sharing = Zero3(model, group, adamw)
        loss = model(ids(0)[:, :4]).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        sharing.sync_gradients()
        return sharing.clip(1e9)

    def once(group):
        model = gpt()
        model(ids(0)[:, :4]).sum().backward()
        return np.sqrt(sum((2 * x.grad**2).sum() * 2 for x in model.parameters()))

    assert minipar.run(work, 2) == pytest.approx(minipar.run(once, 2))


class Twice(Module):
    """One layer called twice, and one whose output is a pair."""

    def __init__(self):
        init = Init(0, np.float64)
        self.steps = [Linear(init / 0, 3, 3, std=1.0), Pair(init / 1)]

    def __call__(self, x):
        same, pair = self.steps
        a, b = pair(same(same(x)))
        return a * b


class Pair(Module):
    def __init__(self, init):
        self.left, self.right = Linear(init / "l", 3, 2), Linear(init / "r", 3, 2)

    def __call__(self, x):
        return self.left(x), tanh(self.right(x))


@pytest.mark.parametrize("units", [None, lambda m: [m.steps[1]], lambda m: [m], lambda m: []])
def test_any_units(units):
    x = Tensor(np.ones((4, 3)))
    one = Twice()
    one(x).sum().backward()

    def work(group):
        model = Twice()
        sharing = Zero3(model, group, adamw, units and units(model))
        sharing.zero_grad()
        model(x).sum().backward()
        sharing.sync_gradients()
        state = {}
        for s in sharing.owned.slices:
            whole = group.all_gather(s.grad)
            state |= {name: s.flat.view(whole, name) for name in s.flat.parameters}
        return state

    for state in minipar.run(work, 2):
        assert difference(state, {n: x.grad for n, x in one.named_parameters()}) < 1e-12


class Squares(Module):
    """The gradient of a weight needs the weight."""

    def __init__(self):
        init = Init(0, np.float64)
        self.layers = [Square(init / n) for n in range(3)]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Square(Module):
    def __init__(self, init):
        self.weight = Tensor(init.normal("weight", (4,), 1.0), requires_grad=True)

    def __call__(self, x):
        return x * (self.weight * self.weight)


def test_weights_come_back_for_gradients_that_were_put_off():
    one, x = Squares(), Tensor(np.ones((2, 4)))
    one(x).sum().backward()

    def work(group):
        model, inputs = Squares(), Tensor(np.ones((2, 4)), requires_grad=True)
        sharing = Zero3(model, group, adamw)
        loss = model(inputs).sum()
        rest = loss.backward(defer=[x for x in leaves(loss._node) if x is not inputs])
        assert inputs.grad is not None
        model(x)  # drops what that has gathered
        assert all(unit.presence == "." for unit in sharing.units)
        rest()
        sharing.sync_gradients()
        return {n: group.all_gather(s.grad) for n, s in zip("210", sharing.owned.slices)}

    for found in minipar.run(work, 2):
        wanted = {str(n): layer.weight.grad for n, layer in enumerate(one.layers)}
        assert difference({n: a.reshape(-1) for n, a in found.items()}, wanted) < 1e-12


def test_names_and_types_stay():
    layer = Linear(Init(), 2, 3)
    said = []
    call_through(layer, lambda call: said.append(1) or call())
    assert isinstance(layer, Linear) and type(layer).__name__ == "Linear"
    assert layer(Tensor(np.ones((1, 2), np.float32))).shape == (1, 3)
    assert said == [1]
    assert Linear(Init(), 2, 3)(Tensor(np.ones((1, 2), np.float32))) is not None and said == [1]


def test_what_comes_before_backward():
    said = []
    x = Tensor(np.ones(2), requires_grad=True)
    z, same = before_backward((x * 2.0, "text"), lambda: said.append(x.grad))
    assert same == "text" and said == []
    z.sum().backward()
    assert said == [None] and x.grad.tolist() == [2, 2]


def test_a_gpt_on_four_ranks_sends_and_holds_what_the_formula_says():
    """Its blocks are units; embeddings and the last norm are the rest."""

    def work(group):
        model = GPT(Init(0), 128, block=16, layers=12, d=32, heads=2)
        sizes = [[x.data.nbytes for _, x in part] for part in split_parameters(model, model.blocks)]
        sharing = Zero3(model, group, Adam)
        peak = Peak(model, sharing)
        with recording() as log:
            model(np.zeros((2, 16), np.int64)).sum().backward()
            sharing.sync_gradients()
            sharing.step()
        return sizes, peak.nbytes, sum(event.nbytes for event in log if event.nbytes > 3000)

    for (*units, rest), peak, sent in minipar.run(work, 4):
        r, u, t = sum(rest), sum(units[0]), max(units[0] + rest)
        n = 12 * u + r
        assert peak == pytest.approx(
            cost.zero3_kept(4, n, 2) + cost.zero3_passing(u, t, r), rel=0.05
        )
        assert sent == cost.zero3_sent(4, n, r)
