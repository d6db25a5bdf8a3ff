from __future__ import annotations

import pytest

from minipar.errors import GraphError, UsageError
from minipar.ops import linear, tanh
from minipar.tensor import Tensor
from minipar.trace.graph_figure import _columns, draw_graph


def small() -> tuple[Tensor, dict[str, Tensor]]:
    x = Tensor([[1.0, 2.0]])
    w = Tensor([[1.0], [2.0]], requires_grad=True)
    b = Tensor([0.5], requires_grad=True)
    return (tanh(linear(x, w, b)) * b).sum(), {"w": w, "b": b}


def test_a_node_stands_right_of_its_parents_and_a_leaf_beside_its_first_consumer() -> None:
    loss, leaves = small()
    columns = _columns(loss._node)
    named = [
        [next((n for n, t in leaves.items() if t is p), None) or p.vjp.__qualname__ for p in column]
        for column in columns
    ]
    assert [sorted(part.split(".")[0] for part in column) for column in named] == [
        ["b", "w"], ["linear"], ["tanh"], ["mul"], ["sum"],
    ]  # fmt: skip


def test_names_and_ops_are_written(tmp_path) -> None:
    loss, leaves = small()
    figure = draw_graph(loss, **leaves)
    texts = {text.get_text().strip() for text in figure.axes[0].texts}
    assert {"w", "b", "linear", "tanh", "mul (·)", "sum", "2×1", "a number"} <= texts
    figure.savefig(tmp_path / "graph.png")


def test_shapes_are_left_out_where_all_are_numbers() -> None:
    w = Tensor(2.0, requires_grad=True)
    texts = [text.get_text() for text in draw_graph((w * 3.0 - 1.0) ** 2, w=w).axes[0].texts]
    assert sorted(filter(None, texts)) == ["mul (·)", "pow (^)", "sub (−)", "w"]


def test_a_freed_graph_is_said_to_be_gone() -> None:
    loss, leaves = small()
    loss.backward()
    with pytest.raises(GraphError, match="before backward"):
        draw_graph(loss, **leaves)


def test_a_graph_too_large_to_read() -> None:
    x = Tensor([1.0], requires_grad=True)
    z = x
    for _ in range(2000):
        z = tanh(z)
    with pytest.raises(UsageError, match="60 nodes"):
        draw_graph(z, x=x)
