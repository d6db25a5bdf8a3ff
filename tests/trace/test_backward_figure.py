import numpy as np

from minipar.graph import Node
from minipar.ops import linear, tanh
from minipar.origin import op_name
from minipar.tensor import Tensor
from minipar.trace.backward_figure import backward_steps, draw_backward


def leaf(value):
    return Tensor(np.float64(value), requires_grad=True)


def test_the_steps_are_the_chain_rule_from_right_to_left():
    w, v = leaf(0.4), leaf(0.5)
    h = np.tanh(0.6)
    loss = (v * tanh(w * 1.5) - 1.0) ** 2
    steps = backward_steps(loss)
    names = [op_name(s.part.vjp) if isinstance(s.part, Node) else "leaf" for s in steps]
    assert names[:3] == ["pow", "sub", "mul"] and sorted(names[3:]) == [
        "leaf",
        "leaf",
        "mul",
        "tanh",
    ]
    dy = 2 * (0.5 * h - 1)
    found = {id(s.part): float(s.gradient) for s in steps}
    np.testing.assert_allclose(found[id(v)], dy * h, rtol=1e-14)
    np.testing.assert_allclose(found[id(w)], dy * 0.5 * (1 - h * h) * 1.5, rtol=1e-14)
    assert float(steps[0].gradient) == 1
    np.testing.assert_allclose(steps[1].gradient, dy, rtol=1e-14)


def test_looking_changes_nothing():
    w = leaf(2.0)
    loss = w * w
    backward_steps(loss)
    assert w.grad is None
    loss.backward()
    assert w.grad == 4


def test_each_step_is_a_row_and_each_number_is_in_it():
    w, x = Tensor(np.ones((3, 2)), requires_grad=True), Tensor(np.ones((4, 3)))
    loss = tanh(linear(x, w)).sum()
    figure = draw_backward(loss, w=w)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "step 1: sum",
        "step 2: tanh",
        "step 3: linear",
        "step 4: w",
    ]
    shown = [text.get_text() for text in figure.axes[-1].texts]
    assert "1" in shown  # the gradient of the sum
    slope = 4 * (1 - np.tanh(3) ** 2)  # of each of the 6 weights
    assert f"norm {slope * 6**0.5:.3g}" in shown
