"""Backward, step by step, on the drawn graph.

Each row is a step of the engine: the part whose gradient has just become complete is orange, and
the number below its name is that gradient. Grey parts are done. What is still blue or green has not
been reached.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from minipar.array import Array, array_module, to_numpy
from minipar.graph import Node, Vjp, backward
from minipar.tensor import Tensor
from minipar.trace.graph_figure import Layout, Look, parts_below, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORANGE, GREY = "#D55E00", "#999999"


class Step(NamedTuple):
    """A node or leaf, and the complete gradient of the root by it."""

    part: Any
    gradient: Array


def backward_steps(root: Tensor) -> list[Step]:
    """What root.backward() would do, in its order; adds to no .grad, and leaves the graph.

    It is the engine itself that runs, with every vjp watched.
    """
    node: Any = root._node
    steps: list[Step] = []

    def watched(part: Node, vjp: Vjp) -> Vjp:
        @functools.wraps(vjp)
        def seen(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
            steps.append(Step(part, dz.copy()))
            return vjp(dz, wanted)

        return seen

    def finish(leaf: Any, g: Array, fresh: bool) -> None:
        steps.append(Step(leaf, g.copy()))

    nodes = [(part, part.vjp) for part in parts_below(node) if isinstance(part, Node)]
    try:
        for part, vjp in nodes:
            part.vjp = watched(part, vjp)
        backward(node, array_module(root.data).ones_like(root.data), retain=True, finish=finish)
    finally:
        for part, vjp in nodes:
            part.vjp = vjp
    return steps


def draw_backward(root: Tensor, **leaves: Tensor) -> Figure:
    """A row for each step of root.backward(), which is not called.  Raises: as `draw_graph`."""
    from matplotlib.figure import Figure

    layout, steps = Layout(root, leaves), backward_steps(root)
    width, height = layout.size
    figure = Figure(figsize=(1.5 * width, 0.85 * height * len(steps)), dpi=130)
    rows = figure.subplots(len(steps), 1, squeeze=False)[:, 0]
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.97, hspace=0.25)
    for n, (axes, step) in enumerate(zip(rows, steps)):
        done = {id(s.part): s.gradient for s in steps[: n + 1]}

        def look(part: Any, done: dict[int, Array] = done, now: Any = step.part) -> Look:
            if id(part) not in done:
                return plain(part)
            note = _short(done[id(part)])
            return Look("#FBE3C8", ORANGE, note) if part is now else Look("#EEEEEE", GREY, note)

        layout.draw(axes, look)
        axes.set_title(f"step {n + 1}: {layout.name(step.part)}", fontsize=9, loc="left", pad=2)
    return figure


def _short(gradient: Array) -> str:
    """A number as it is, of an array how long it is as a vector."""
    values = to_numpy(gradient)
    if values.size == 1:
        return f"{values.item():.4g}"
    return f"norm {(values.astype(float) ** 2).sum() ** 0.5:.3g}"
