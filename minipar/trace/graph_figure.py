"""The graph behind a tensor, drawn: ops from left to right, and the leaves that gradients go to.

A column is a distance from the leaves. What needs no gradient (data, frozen weights) is not part of
the graph, so it is not in the picture. Shapes are left out where everything is a single number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from minipar.errors import GraphError, UsageError
from minipar.graph import Node
from minipar.origin import op_name
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

    layout = Layout(root, leaves)
    width, height = layout.size
    figure = figure or Figure(figsize=(1.75 * width, 0.95 * height), dpi=150)
    axes = figure.subplots()
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    layout.draw(axes)
    return figure


class Look(NamedTuple):
    """How a part is drawn: the colours of its box, and a note below it."""

    face: str
    edge: str
    note: str = ""


def plain(part: Any) -> Look:
    """Ops blue, leaves green."""
    return Look("#DCEBF5", BLUE) if isinstance(part, Node) else Look("#DDF2EA", GREEN)


class Layout:
    """Where the parts (nodes and leaves) of a graph stand; `size` is in columns and rows."""

    def __init__(self, root: Tensor, leaves: Mapping[str, Tensor]) -> None:
        """Raises: as `draw_graph`."""
        node: Any = root._node
        if node is None or not node.parents:
            raise GraphError(
                "there is no graph to draw: draw it before backward(), which frees it."
            )
        columns = _columns(node)
        self.names = {id(tensor): name for name, tensor in leaves.items()}
        self.places = _places(columns)
        self.size = len(columns), max(map(len, columns))
        self.parts = [part for column in columns for part in column]

    def name(self, part: Any) -> str:
        """The op with its sign, or the name of the leaf."""
        if not isinstance(part, Node):
            return self.names.get(id(part), "leaf")
        op = op_name(part.vjp)
        return f"{op} ({SYMBOLS[op]})" if op in SYMBOLS else op

    def draw(self, axes: Axes, look: Callable[[Any], Look] = plain) -> None:
        """Draw all of it into axes that nothing else is drawn into."""
        width, height = self.size
        axes.set(xlim=(-0.45, width - 0.55), ylim=(0.4 - height, 0.4))
        axes.axis("off")
        arrow = {"arrowstyle": "-|>", "color": "#777777", "shrinkA": 1, "shrinkB": 1}
        shapes = any(part.shape for part in self.parts)
        for part in self.parts:
            _box(axes, self.places[id(part)], part, self.name(part), look(part), shapes)
            for parent in _parents(part):
                (x, y), (u, v) = self.places[id(part)], self.places[id(parent)]
                axes.annotate("", (x - HALF, y), (u + HALF, v), arrowprops=arrow)


def _parents(part: Any) -> list[Any]:
    return [p for p in part.parents if p is not None] if isinstance(part, Node) else []


def parts_below(root: Node) -> Iterator[Any]:
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
    for part in parts_below(root):
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


def _box(
    axes: Axes, place: tuple[float, float], part: Any, name: str, look: Look, shapes: bool
) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    style = "round,pad=0,rounding_size=0.12" if isinstance(part, Node) else "square,pad=0"
    box = FancyBboxPatch(
        (x - HALF, y - 0.27),
        2 * HALF,
        0.54,
        boxstyle=style,
        facecolor=look.face,
        edgecolor=look.edge,
        linewidth=1.4,
    )
    axes.add_patch(box)
    below = look.note or ("×".join(map(str, part.shape)) or "a number") * shapes
    middle = y + 0.09 if below else y
    axes.text(x, middle, name, ha="center", va="center", fontweight="bold", color=INK)
    axes.text(x, y - 0.14, below, ha="center", va="center", fontsize=8, color=INK)
