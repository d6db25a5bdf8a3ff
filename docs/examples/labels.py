"""A layer written by hand adds the bias before the sum over the ranks: so it is added twice."""

import numpy as np

import minipar
from minipar.errors import LabelMismatch
from minipar.labels import PARTIAL, label
from minipar.ops import linear
from minipar.parallel.tensor_layers import TensorKit

group, init = minipar.init(), minipar.Init(seed=0)
kit = TensorKit(group)
up, down = kit.column(init / "up", 4, 8), kit.row(init / "down", 8, 4)

with minipar.checks():
    h = up(minipar.Tensor(np.ones((2, 4), np.float32)))
    z = label(linear(h, down.weight), PARTIAL, "down", group)
    try:
        z = z + down.bias
    except LabelMismatch as wrong:
        print(wrong)
