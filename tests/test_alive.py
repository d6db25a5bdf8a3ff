"""What is alive against sums that are made by hand: shapes, formulas, and what a schedule keeps."""

from minipar.alive import KINDS
from minipar.nn import Linear, Module
from minipar.ops import relu
from minipar.random import Init

D, ROWS, LAYERS = 8, 6, 4
WEIGHT = 4 * D * (D + 1)  # bytes of a layer


class Chain(Module):
    """Layers [D, D] with a relu after each; on x [ROWS, D] each array between has as much."""

    def __init__(self):
        init = Init(0)
        self.layers = [Linear(D, D, init=init / f"{n}") for n in range(LAYERS)]

    def __call__(self, x):
        for layer in self.layers:
            x = relu(layer(x))
        return x


def held(trace, kind):
    return [[row[1 + KINDS.index(kind)] for row in rank.held] for rank in trace.ranks]
