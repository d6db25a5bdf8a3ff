"""Spans by hand: a clock that counts how often it is asked, so that every time is known."""

import itertools

import numpy as np
import pytest

from minipar import ambient, ops, spans
from minipar.events import Recorder
from minipar.models import MLP
from minipar.nn import Module
from minipar.random import Init
from minipar.recompute import checkpoint
from minipar.spans import Mark, Tape, Watcher, at_step, know, mark, name_group, span
from minipar.tensor import Tensor


@pytest.fixture
def tape():
    """This thread is traced; every look at the clock takes a nanosecond."""
    recorder = Recorder()
    recorder.tape = Tape(itertools.count().__next__, lambda: 7)
    tokens = (
        ambient.recorder.set(recorder),
        ambient.grad_enabled.set(Watcher(recorder.tape, True)),
    )
    yield recorder.tape
    ambient.grad_enabled.reset(tokens[1])
    ambient.recorder.reset(tokens[0])


def seen(tape):
    return [(s.kind, s.name, s.depth) for s in tape.spans]


def test_without_a_tape_a_span_is_nothing_at_all():
    assert spans.tape() is None and span("forward") is spans.NOTHING
    know(None)
    name_group(None, "dp")
    at_step(3)
    mark("clock", 0, 1)


def test_spans_lie_inside_each_other_and_know_step_and_micro_batch(tape):
    at_step(4)
    with span("backward", micro=2), span("reduce", "dp"):
        pass
    with span("optimizer"):
        pass
    assert [tuple(s) for s in tape.spans] == [
        ("reduce", "dp", 1, 2, 2, 4, 1, False),
        ("backward", "", 0, 3, 2, 4, 0, False),
        ("optimizer", "", 5, 6, -1, 4, 0, False),
    ]
    assert tape.memory == [(4, 7), (7, 7)]  # at the end of each outermost one


def test_a_mark_is_a_moment(tape):
    with span("forward"):
        mark("clock", 3, 1)
    mark("version", 0, 7, lag=2)
    assert tape.marks == [Mark("clock", 1, 3, 1, -1), Mark("version", 4, 0, 7, 2)]


class Twice(Module):
    def __init__(self):
        self.weight = Tensor(np.ones(2), requires_grad=True)

    def __call__(self, x):
        return x * self.weight * self.weight


class Stack(Module):
    def __init__(self):
        self.layers = [Twice(), Twice()]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_forward_and_backward_of_each_module_by_its_name(tape):
    model = Stack()
    know(model)
    with span("forward"):
        loss = model(Tensor(np.ones(2))).sum()
    with span("backward"):
        loss.backward()
    assert seen(tape) == [
        ("forward", "layers.0", 2),
        ("forward", "layers.1", 2),
        ("forward", "Stack", 1),
        ("forward", "", 0),
        ("backward", "", 1),  # the sum
        ("backward", "layers.1", 1),  # its two products, as one
        ("backward", "layers.0", 1),
        ("backward", "", 0),
    ]
    assert all(s.begin < s.end for s in tape.spans)
    assert tape.spans[5].end - tape.spans[5].begin == 3  # four looks at the clock


def test_what_is_computed_again_is_called_so(tape):
    model = Stack()
    know(model)
    z = checkpoint(model.layers[0], Tensor(np.ones(2), requires_grad=True)).sum()
    with span("backward"):
        z.backward()
    assert ("recompute", "layers.0") in [s[:2] for s in tape.spans]


def test_gradients_are_the_same_to_the_bit_while_traced(tape):
    x, y = np.arange(12).reshape(4, 3), np.array([1, 2, 0, 3])

    def gradients():
        model = MLP(Init(0), 12, context=3, d=4, hidden=(8,))
        ops.cross_entropy(model(x)[:, -1] if model(x).ndim == 3 else model(x), y).backward()
        return [w.grad for w in model.parameters()]

    traced = gradients()
    token = ambient.grad_enabled.set(True)
    assert all(np.array_equal(a, b) for a, b in zip(traced, gradients(), strict=True))
    ambient.grad_enabled.reset(token)


def test_every_module_of_a_model_has_a_name():
    model = MLP(Init(0), 12, context=3, d=4, hidden=(8, 8))
    named = dict(model.named_modules())
    assert set(named.values()) == set(model.modules()) - {model}
    for name, module in named.items():
        for inner, x in module.named_parameters():
            assert dict(model.named_parameters())[f"{name}.{inner}"] is x
