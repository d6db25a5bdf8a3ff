"""A weight is changed between the forward pass and backward."""

import minipar
from minipar import Tensor
from minipar.ops import linear, relu

x = Tensor([[1.0, 2.0]])
w, v = (Tensor([[0.5, 1.0], [1.5, 2.0]], requires_grad=True) for _ in range(2))

with minipar.checks():
    loss = linear(relu(linear(x, w)), v).sum()
    v.data -= 0.1  # an optimizer's step, too early
    try:
        loss.backward()
    except minipar.errors.GraphError as error:
        print(error)
