"""The layers of a model in time: which rows there are, in which order, and when they compute."""

import numpy as np
import pytest

from minipar import Cluster, Init
from minipar.errors import TraceError
from minipar.nn import Linear, Module
from minipar.spans import know
from minipar.tensor import Tensor
from minipar.trace.layer_figure import MOST, draw_layers, rows_of
from minipar.trace.traced import takes, traced


class Net(Module):
    def __init__(self):
        init = Init(0, np.float64)
        self.a, self.b = Linear(init / "a", 3, 3), Linear(init / "b", 3, 3)

    def __call__(self, x):
        return self.b(self.a(x)) * 2.0


def step(group):
    net = Net()
    know(net)
    takes([net.a], 1e-6, 2e-6)
    takes([net.b], 3e-6, 4e-6)
    net(Tensor(np.ones((2, 3)))).sum().backward()


def boxes_of(figure):
    """[begin, end] of each box, by row and colour."""
    found = {}
    for bars in figure.axes[0].collections:
        for path in bars.get_paths():
            x0, y0 = path.vertices.min(axis=0)
            x1, y1 = path.vertices.max(axis=0)
            if x1 > x0:
                key = int((y0 + y1) / 2)
                found.setdefault(key, []).append((round(x0 * 1e3), round(x1 * 1e3)))
    return found


def test_forward_goes_down_and_backward_up():
    _, trace = traced(step, 1, cluster=Cluster())
    figure = draw_layers(trace, 0, trace.end, "a title")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["Net", "   a", "   b", "no module"]
    assert boxes_of(figure) == {0: [(0, 4)], 1: [(0, 1), (8, 10)], 2: [(1, 4), (4, 8)]}
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["forward", "backward"]


def test_a_window_without_modules_is_refused():
    _, trace = traced(lambda group: group.barrier(), 2, cluster=Cluster())
    with pytest.raises(TraceError, match="no module"):
        draw_layers(trace, 0, trace.end)


def test_what_lies_deepest_is_left_out_of_a_deep_model():
    from minipar.spans import Span

    outer = [Span("forward", f"blocks.{n}", 10 * n, 10 * n + 9) for n in range(40)]
    inner = [Span("forward", f"blocks.{n}.mlp", 10 * n, 10 * n + 5, depth=1) for n in range(40)]
    assert len(rows_of(outer[:20] + inner[:20])) == 40
    assert list(rows_of(outer + inner)) == [span.name for span in outer]
    assert len(rows_of(outer + inner)) <= MOST
