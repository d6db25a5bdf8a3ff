"""The graph behind a tensor, drawn: ops from left to right, and the leaves that gradients go to.

A column is a distance from the leaves. What needs no gradient (data, frozen weights) is not part of
the graph, so it is not in the picture. Shapes are left out where everything is a single number.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from minipar.errors import GraphError, UsageError
from minipar.graph import Node
from minipar.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HALF = 0.37  # of the width of a box; columns are 1 apart
MOST = 60  # nodes and leaves that still fit a picture
BLUE, GREEN, INK = "#0072B2", "#009E73", "#222222"
SYMBOLS = MappingProxyType({"add": "+", "sub": "−", "mul": "·", "div": "/", "neg": "−", "pow": "^"})


def draw_graph(root: Tensor, figure: Figure | None = None, **leaves: Tensor) -> Figure:
    """Draw what root was computed from; returns the figure.

    leaves: tensors by the names that they get in the picture, e.g. w=w.
    Raises: GraphError without a graph, or after backward has freed it; UsageError above 60 nodes.
    """
    from matplotlib.figure import Figure

    node: Any = root._node
    if node is None or not node.parents:
        raise GraphError("there is no graph to draw: draw it before backward(), which frees it.")
    names = {id(tensor): name for name, tensor in leaves.items()}
    columns = _columns(node)
    places = _places(columns)
    height = max(map(len, columns))
    figure = figure or Figure(figsize=(1.75 * len(columns), 0.95 * height), dpi=150)
    axes = figure.subplots()
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    axes.set(xlim=(-0.45, len(columns) - 0.55), ylim=(0.4 - height, 0.4))
    axes.axis("off")
    arrow = {"arrowstyle": "-|>", "color": "#777777", "shrinkA": 1, "shrinkB": 1}
    parts = [part for column in columns for part in column]
    shapes = any(part.shape for part in parts)
    for part in parts:
        _box(axes, places[id(part)], part, names.get(id(part), "leaf"), shapes)
        for parent in _parents(part):
            (x, y), (u, v) = places[id(part)], places[id(parent)]
            axes.annotate("", (x - HALF, y), (u + HALF, v), arrowprops=arrow)
    return figure


def _parents(part: Any) -> list[Any]:
    return [p for p in part.parents if p is not None] if isinstance(part, Node) else []


def _all(root: Node) -> Iterator[Any]:
    seen, stack = {id(root)}, [root]
    while stack:
        part = stack.pop()
        yield part
        for parent in reversed(_parents(part)):
            if id(parent) not in seen:
                seen.add(id(parent))
                stack.append(parent)


def _columns(root: Node) -> list[list[Any]]:
    """Nodes and leaves by column: a node right of all its parents, a leaf beside its consumer."""
    parts = []
    for part in _all(root):
        parts.append(part)
        if len(parts) > MOST:
            raise UsageError(f"the graph has more than {MOST} nodes; draw that of a smaller part.")
    level: dict[int, int] = {}

    def depth(part: Any) -> int:
        if id(part) not in level:
            level[id(part)] = 1 + max(map(depth, _parents(part)), default=-1)
        return level[id(part)]

    depth(root)
    for leaf in (part for part in parts if not isinstance(part, Node)):
        level[id(leaf)] = (
            min(level[id(p)] for p in parts if any(q is leaf for q in _parents(p))) - 1
        )
    columns: list[list[Any]] = [[] for _ in range(level[id(root)] + 1)]
    for part in parts:
        columns[level[id(part)]].append(part)
    return columns


def _places(columns: list[list[Any]]) -> dict[int, tuple[float, float]]:
    """x and y of each part: in a column the ops above, then the leaves, in drawing order."""
    places: dict[int, tuple[float, float]] = {}
    for x, column in enumerate(columns):
        leaves_last = sorted(column, key=lambda part: not isinstance(part, Node))
        for i, part in enumerate(leaves_last):
            places[id(part)] = (x, -i)
    return places


def _box(axes: Axes, place: tuple[float, float], part: Any, name: str, shapes: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    is_node = isinstance(part, Node)
    if is_node:
        name = part.vjp.__qualname__.split(".")[0]
        name += f" ({SYMBOLS[name]})" if name in SYMBOLS else ""
    box = FancyBboxPatch(
        (x - HALF, y - 0.27),
        2 * HALF,
        0.54,
        boxstyle="round,pad=0,rounding_size=0.12" if is_node else "square,pad=0",
        facecolor="#DCEBF5" if is_node else "#DDF2EA",
        edgecolor=BLUE if is_node else GREEN,
        linewidth=1.4,
    )
    axes.add_patch(box)
    middle = y + 0.09 if shapes else y
    axes.text(x, middle, name, ha="center", va="center", fontweight="bold", color=INK)
    if shapes:
        shape = "×".join(map(str, part.shape)) or "a number"
        axes.text(x, y - 0.14, shape, ha="center", va="center", fontsize=8, color=INK)
