"""Pictures of matrices that ranks share, one colour for each rank.

    draw_pair      a column and a row layer, and what is sent between
    draw_heads     the columns of q, k and v, cut per head and cut where it is wrong
    draw_positions who holds which positions of x through a block, under sequence parallel

Each gives a matplotlib figure. White is what every rank has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7")  # distinct for the colour-blind, too
WHITE, INK = "#FFFFFF", "#333333"
Owner = Callable[[int], int | None]  # number of a stripe -> rank; None: all of them


def draw_pair(p: int = 2) -> Any:
    """x W1, gelu, times W2: where the cuts run, and where f and g stand."""
    figure, axes = _canvas(12.2, 4.4)
    _matrix(axes, 0.2, (2.0, 1.4), 1, _all, "x", "rows × i")
    _text(axes, 2.55, "f", 18)
    _matrix(axes, 2.95, (2.2, 2.0), p, _own, r"$W_1$", "its columns")
    _text(axes, 5.5, "=", 16)
    _matrix(axes, 5.85, (2.2, 1.4), p, _own, "gelu(h)", "own features")
    _text(axes, 8.3, "·", 20)
    _matrix(axes, 8.55, (1.6, 2.2), p, _own, r"$W_2$", "its rows", down=True)
    _text(axes, 10.4, "=", 16)
    for r in range(p):
        y = 2.2 + 1.75 * ((p - 1) / 2 - r)
        _matrix(axes, 10.75, (1.6, 1.4), 1, partial(_only, r), "", "", middle=y)
        if r:
            axes.text(11.55, y + 0.875, "+", ha="center", va="center", fontsize=14, color=INK)
    _text(axes, 12.75, "g", 18)
    _matrix(axes, 13.15, (1.6, 1.4), 1, _all, "z", "the sum")
    axes.set(xlim=(0, 15), ylim=(0.4, 4.0))
    _legend(axes, p)
    return figure


def draw_heads(p: int = 2, heads: int = 4) -> Any:
    """The columns of a fused weight of q, k and v: per head, and in one go."""
    figure, axes = _canvas(9.5, 3.5)
    each, width = heads // p, 8.0
    for middle, title, owner in (
        (2.7, "right: each of the three by heads", lambda n: n % heads // each),
        (1.1, "wrong: in one piece", lambda n: n * p // (3 * heads)),
    ):
        size = (width, 0.7)
        _matrix(axes, 0.3, size, 3 * heads, owner, "", "", middle=middle)
        for part, name in enumerate("qkv"):
            for head in range(heads):
                x = 0.3 + width * (part * heads + head + 0.5) / (3 * heads)
                axes.text(x, middle, f"{name}{head}", ha="center", va="center", fontsize=10)
        axes.text(0.3, middle + 0.47, title, fontsize=11, color=INK)
    axes.set(xlim=(0, 8.6), ylim=(0.5, 3.5))
    _legend(axes, p, everybody=False)
    return figure


def draw_positions(p: int = 2) -> Any:
    """A branch of a block under sequence parallel: positions run downwards, features across."""
    figure, axes = _canvas(12.2, 3.9)
    x = 0.3
    for name, owner, down, arrow in (
        ("x", _own, True, "norm"),
        ("norm(x)", _own, True, "all-gather"),
        ("norm(x)", _all, True, "column"),
        ("features", _own, False, "row"),
        ("partial", None, False, "reduce-scatter"),
        ("the sum", _own, True, "dropout, + x"),
        ("x", _own, True, ""),
    ):
        if owner is None:
            for r in reversed(range(p)):
                shift = 0.14 * r
                _matrix(axes, x + shift, (1.1, 1.9), 1, partial(_only, r), "", "",
                        middle=1.8 + shift)  # fmt: skip
            axes.text(x + 0.6, 0.55, "partial sums", ha="center", fontsize=10, color=INK)
        else:
            stripes = p if owner is _own else 1
            _matrix(axes, x, (1.1, 1.9), stripes, owner, "", name, middle=1.8, down=down)
        x += 1.1
        if arrow:
            axes.annotate("", (x + 0.78, 1.8), (x + 0.12, 1.8),
                          arrowprops={"arrowstyle": "->", "color": INK})  # fmt: skip
            axes.text(x + 0.45, 3.0, arrow, ha="center", fontsize=10, color=INK)
        x += 0.9
    axes.set(xlim=(0, x), ylim=(0.4, 3.3))
    _legend(axes, p)
    return figure


def _own(n: int) -> int | None:
    return n


def _only(r: int, n: int) -> int | None:
    return r


def _all(n: int) -> int | None:
    return None


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


def _matrix(
    axes: Any,
    x: float,
    size: tuple[float, float],
    stripes: int,
    owner: Owner,
    name: str,
    below: str,
    middle: float = 2.2,
    down: bool = False,
) -> None:
    """A rectangle in equal stripes, side by side or downwards, in the colours of their owners."""
    from matplotlib.patches import Rectangle

    w, h = size
    bottom = middle - h / 2
    for n in range(stripes):
        rank = owner(n)
        colour = WHITE if rank is None else COLOURS[rank % len(COLOURS)]
        at = (x, bottom + h - (n + 1) * h / stripes) if down else (x + n * w / stripes, bottom)
        part = (w, h / stripes) if down else (w / stripes, h)
        axes.add_patch(Rectangle(at, *part, facecolor=colour, edgecolor=INK, linewidth=1.2))
    axes.text(x + w / 2, middle + h / 2 + 0.12, name, ha="center", va="bottom", fontsize=13)
    axes.text(x + w / 2, bottom - 0.12, below, ha="center", va="top", fontsize=10, color=INK)


def _text(axes: Any, x: float, text: str, size: int) -> None:
    axes.text(x, 2.2, text, ha="center", va="center", fontsize=size, color=INK)


def _legend(axes: Any, p: int, everybody: bool = True) -> None:
    from matplotlib.patches import Patch

    ranks: Sequence[Any] = [
        Patch(facecolor=COLOURS[r % len(COLOURS)], edgecolor=INK, label=f"rank {r}")
        for r in range(p)
    ]
    all_of_them = [Patch(facecolor=WHITE, edgecolor=INK, label="every rank")] * everybody
    axes.legend(handles=[*ranks, *all_of_them], loc="upper center", ncols=p + 1, frameon=False,
                bbox_to_anchor=(0.5, 0.04))  # fmt: skip
