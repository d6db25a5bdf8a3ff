"""Runs that are traced in one call, and what is declared for modules, to the nanosecond."""

import numpy as np
import pytest

import minipar
from minipar import Cluster, Init
from minipar.nn import Linear, Module
from minipar.ops import relu
from minipar.spans import span
from minipar.tensor import Tensor
from minipar.trace.traced import takes, traced

LINK = Cluster(1e-6, 1e-9, 0)  # 1 µs a message, 1 ns a byte


class Net(Module):
    def __init__(self):
        init = Init(0, np.float64)
        self.layers = [Linear(init / n, 3, 3) for n in range(2)]

    def __call__(self, x):
        for layer in self.layers:
            x = relu(layer(x))
        return x


def test_it_returns_what_run_returns_and_the_trace():
    def work(group, x):
        with span("forward"):
            group.spend(1e-6)
        return group.all_reduce(x)

    results, trace = traced(work, 2, args=(np.ones(3),), cluster=LINK)
    assert [found.tolist() for found in results] == [[2.0] * 3] * 2
    assert trace.virtual and [len(rank.calls) for rank in trace.ranks] == [1, 1]
    assert [s.end for s in trace.ranks[1].spans if s.kind == "forward"] == [1000]
    _, measured = traced(work, 2, args=(np.ones(3),))
    assert not measured.virtual


def test_what_fails_raises():
    with pytest.raises(ZeroDivisionError):
        traced(lambda group: 1 / group.rank, 2)


def test_modules_take_what_is_declared_forward_and_backward():
    def work(group):
        net, x = Net(), Tensor(np.ones((2, 3)))
        plain = net(x)
        takes(net.layers, 3e-6, 5e-6)
        begin = group.now_ns()
        z = net(x)
        there = group.now_ns()
        z.sum().backward()
        gradients = [p.grad for p in net.parameters()]
        net.zero_grad()
        plain.sum().backward()
        same = all((a == p.grad).all() for a, p in zip(gradients, net.parameters()))
        return begin, there, group.now_ns(), same and (z.data == plain.data).all()

    (found,), trace = traced(work, 1, cluster=LINK)
    assert found == (0, 6000, 16000, True)
    backward = [s for s in trace.ranks[0].spans if s.kind == "backward" and s.begin < s.end]
    assert [s.end - s.begin for s in backward] == [5000, 5000]
    assert isinstance(Net().layers[0], Linear)


def test_a_column_takes_as_long_when_gelu_is_a_part_of_it():
    def work(group):
        layer = Linear(Init(0, np.float64), 3, 3)
        takes([layer], 3e-6, 5e-6)
        z = layer.gelu(Tensor(np.ones((2, 3))))
        there = group.now_ns()
        z.sum().backward()
        return there, group.now_ns()

    assert minipar.run(work, 1, cluster=LINK) == [(3000, 8000)]


def test_a_module_keeps_its_type_and_its_names():
    net = Net()
    names = [name for name, _ in net.named_parameters()]
    takes(net.layers, 1.0, 1.0)
    assert all(isinstance(layer, Linear) for layer in net.layers)
    assert [name for name, _ in net.named_parameters()] == names
    assert type(net.layers[0]).__name__ == "Linear"


def test_where_time_is_measured_nothing_is_added():
    def work(group):
        net = Net()
        takes(net.layers, 1e9, 1e9)
        net(Tensor(np.ones((2, 3)))).sum().backward()
        return True

    assert minipar.run(work, 1) == [True]
