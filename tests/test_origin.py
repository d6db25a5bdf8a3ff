from pathlib import Path

import numpy as np
import pytest

from minipar.errors import GraphError, ShapeMismatch
from minipar.nn import Linear
from minipar.ops import linear, relu
from minipar.random import Init
from minipar.tensor import Tensor, record, shown


def line_of(marker: str) -> str:
    """file:line of the line of this file that ends in a comment `# marker`."""
    for number, line in enumerate(Path(__file__).read_text().splitlines(), 1):
        if line.endswith(f"# {marker}"):
            return f"test_origin.py:{number}"
    raise AssertionError(marker)


def test_a_computed_tensor_tells_the_op_and_the_line():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    z = relu(x + 1.0)  # made here
    assert shown(z).startswith("float64[2, 3] (made by relu at ")
    assert shown(z).endswith(f"{line_of('made here')})")
    assert shown(x) == "float64[2, 3]"


def test_layers_are_passed_over_to_the_line_that_called_them():
    layer = Linear(Init(), 3, 4)
    z = layer(Tensor(np.ones((2, 3), np.float32)))  # calls the layer
    assert "(made by linear at " in shown(z) and line_of("calls the layer") in shown(z)


def test_a_vjp_that_gives_a_wrong_shape_is_named_with_its_line():
    x = Tensor(np.ones(3), requires_grad=True)
    z = record(x.data * 2, (x,), lambda dz, wanted: (dz[:2],))
    with pytest.raises(ShapeMismatch, match=r"test_a_vjp_that_gives.*test_origin\.py"):
        z.backward(np.ones(3))


def test_a_second_backward_says_where_the_freed_value_was_made():
    x = Tensor(np.ones(3), requires_grad=True)
    z = (x * x).sum()  # freed
    z.backward()
    with pytest.raises(GraphError, match=line_of("freed")):
        z.backward()


def test_a_shape_that_does_not_fit_is_followed_to_where_it_was_made():
    x, w = Tensor(np.ones((2, 3)), requires_grad=True), Tensor(np.ones((2, 3)))
    h = relu(x)  # the culprit
    with pytest.raises(ShapeMismatch, match=r"linear: x is float64\[2, 3\] \(made by relu at") as e:
        linear(h, w)
    assert line_of("the culprit") in str(e.value)
    with pytest.raises(
        ShapeMismatch, match=r"add: float64\[2, 3\] \(made by relu at .* do not broad"
    ):
        h + np.ones(2)
