import numpy as np

from minipar.nn import Linear, Sequential
from minipar.ops import relu
from minipar.random import Init
from minipar.tensor import Tensor
from minipar.testing.flops import counting_products


def test_products_are_counted_forward_and_backward_and_only_inside():
    first, second = Linear(Init() / 1, 3, 5), Linear(Init() / 2, 5, 2)
    model, x = Sequential(first, relu, second), Tensor(np.ones((7, 3), np.float32))
    before = [w.data for w in model.parameters()]
    with counting_products(model) as counter:
        z = model(x)
        assert counter == [7 * (3 * 5 + 5 * 2)]
        z.sum().backward()  # dW of both, dx of the second
        assert counter == [7 * (3 * 5 + 5 * 2) + 7 * (3 * 5 + 2 * 5 * 2)]
    counted = counter[0]
    model(x)
    assert counter == [counted]
    assert all(w.data is data for w, data in zip(model.parameters(), before))
    assert all(type(w.data) is np.ndarray for w in model.parameters())
