"""What is gathered at once: which modules are units, what belongs to them, who follows whom."""

import numpy as np

import minipar
from minipar.models import GPT, ResNet
from minipar.nn import Linear, Module
from minipar.parallel.units import Unit, listed, neighbours, split_parameters
from minipar.random import Init
from tests.parallel.sharing import Net


def test_units_are_what_stands_in_lists():
    assert [type(m).__name__ for m in listed(GPT(Init(), 11, block=4, layers=3, d=8, heads=2))] == [
        "Block"
    ] * 3
    assert len(listed(ResNet(Init(), layers=(2, 1), width=4))) == 3
    model = Net()
    *layers, rest = split_parameters(model, listed(model))
    assert [name for name, _ in layers[1]] == [
        *("layers.1.norm.weight", "layers.1.norm.bias"),
        *("layers.1.linear.weight", "layers.1.linear.bias", "layers.1.shared"),
    ]
    names = [name for name, _ in rest]
    assert "layers.0.shared" in names and "layers.2.shared" not in names  # shared: once, in no unit
    assert "frozen" not in names and "unused" in names


class Chunked(Module):
    """Called chunk by chunk."""

    def __init__(self):
        self.chunks = [[Linear(Init(), 2, 2) for _ in range(k)] for k in (2, 1, 2)]


def test_layers_follow_each_other_within_a_chunk():
    chunked = Chunked()
    *layers, ends = neighbours(chunked, listed(chunked))
    assert layers == [(None, 1), (0, None), (None, None), (None, 4), (3, None)]
    assert ends == (None, None)
    plain = Net()
    assert neighbours(plain, plain.layers) == [(None, 1), (0, 2), (1, None), (0, 2)]
    assert neighbours(plain, []) == [(None, None)]


def test_a_unit_is_here_between_gather_and_drop_and_its_slice_always():
    def work(group):
        layer = Linear(Init(0, np.float64), 3, 3)
        weight = layer.weight.data.copy()
        unit = Unit(layer.named_parameters(), group)
        seen = [unit.presence]
        unit.fetch()
        seen.append(unit.presence)
        unit.gather()
        seen.append(unit.presence)
        assert (layer.weight.data == weight).all()
        unit.slice.data += 1  # a step
        unit.renew()
        assert (layer.weight.data == weight + 1).all()
        unit.drop()
        assert np.isnan(layer.weight.data).all()
        return "".join([*seen, unit.presence])

    assert minipar.run(work, 2) == [".+#."] * 2
