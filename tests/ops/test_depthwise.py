"""What depthwise.py computes is held against loops and the definition in test_conv.py."""

import numpy as np

from minipar.ops import conv, conv2d
from minipar.tensor import Tensor


def test_conv2d_with_as_many_groups_as_channels_takes_no_product_for_each(monkeypatch):
    monkeypatch.setattr(conv, "_forward", None)
    monkeypatch.setattr(conv, "_gradients", None)
    x = Tensor(np.ones((2, 4, 4, 3)), requires_grad=True)
    z = conv2d(x, Tensor(np.ones((3, 3, 1, 3))), groups=3)
    z.sum().backward()
    assert (z.data == 9).all() and x.grad[0, 1, 1, 0] == 4


def test_each_channel_has_its_own_kernel():
    x, w = np.ones((1, 5, 5, 2)), np.zeros((3, 3, 1, 2))
    x[0, 2, 2] = 7
    w[0, 0, 0, 0], w[2, 2, 0, 1] = 1, 10  # one looks up and left, the other down and right
    z = conv2d(Tensor(x), Tensor(w), padding=1, groups=2).data
    assert z[0, 3, 3, 0] == 7 and z[0, 1, 1, 1] == 70
