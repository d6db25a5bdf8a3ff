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
    """x W1, gelu, times W2: where the cuts run, and what f and g do where they stand."""
    figure, axes = _canvas(9.6, 3.7)
    _matrix(axes, 0.1, (2.0, 1.4), 1, _all, "x", "")
    _end(axes, 2.55, "f", "forward: nothing\nbackward: all-reduce")
    _matrix(axes, 3.0, (2.2, 2.0), p, _own, r"$W_1$", "cut by columns")
    _text(axes, 5.55, "=", 15)
    _matrix(axes, 5.9, (2.2, 1.4), p, _own, r"gelu($x\,W_1$)", "own features")
    _text(axes, 8.4, "·", 20)
    _matrix(axes, 8.7, (1.6, 2.2), p, _own, r"$W_2$", "cut by rows", down=True)
    _text(axes, 10.65, "=", 15)
    for r in range(p):
        y = 2.2 + 1.75 * ((p - 1) / 2 - r)
        name = "" if r else "partial sums"
        _matrix(axes, 11.0, (1.6, 1.4), 1, partial(_only, r), name, "", middle=y)
        if r:
            axes.text(11.8, y + 0.875, "+", ha="center", va="center", fontsize=14, color=INK)
    _end(axes, 13.05, "g", "forward: all-reduce\nbackward: nothing")
    _matrix(axes, 13.5, (1.6, 1.4), 1, _all, "z", "")
    axes.set(xlim=(0, 15.2), ylim=(-0.6, 4.4))
    _legend(axes, p)
    return figure


def draw_heads(p: int = 2, heads: int = 4) -> Any:
    """The columns of a fused weight of q, k and v: per head, and in one go."""
    figure, axes = _canvas(7.6, 2.7)
    each, width = heads // p, 8.0
    for middle, title, owner in (
        (2.5, "right: each of the three by heads", lambda n: n % heads // each),
        (1.1, "wrong: in one piece", lambda n: n * p // (3 * heads)),
    ):
        size = (width, 0.7)
        _matrix(axes, 0.3, size, 3 * heads, owner, "", "", middle=middle)
        for part, name in enumerate("qkv"):
            for head in range(heads):
                x = 0.3 + width * (part * heads + head + 0.5) / (3 * heads)
                axes.text(x, middle, f"{name}{head}", ha="center", va="center", fontsize=10)
        axes.text(0.3, middle + 0.47, title, fontsize=11, color=INK)
    axes.set(xlim=(0.1, 8.5), ylim=(0.6, 3.3))
    _legend(axes, p, everybody=False)
    return figure


def draw_positions(p: int = 2) -> Any:
    """A branch of a block under sequence parallel: positions run downwards, features across."""
    figure, axes = _canvas(9.6, 2.7)
    x = 0.1
    for name, owner, down, arrow in (
        ("x", _own, True, "norm"),
        ("norm(x)", _own, True, "f:\nall-gather"),
        ("norm(x)", _all, True, "columns"),
        ("features", _own, False, "rows"),
        ("partial sums", None, False, "g:\nreduce-scatter"),
        ("the sum", _own, True, "dropout,\n+ x"),
        ("next x", _own, True, ""),
    ):
        size, stripes, behind = (1.1, 1.9), p if owner is _own else 1, 0.0
        if owner is None:  # one behind the other
            behind = 0.14 * (p - 1)
            for r in reversed(range(1, p)):
                at = 1.8 + 0.14 * r
                _matrix(axes, x + 0.14 * r, size, 1, partial(_only, r), "", "", middle=at)
            owner = partial(_only, 0)
        _matrix(axes, x, size, stripes, owner, "", name, middle=1.8, down=down)
        x += 1.1
        if arrow:
            axes.annotate("", (x + 0.92, 1.8), (x + 0.1 + behind, 1.8),
                          arrowprops={"arrowstyle": "->", "color": INK})  # fmt: skip
            axes.text(x + 0.5, 2.95, arrow, ha="center", va="bottom", fontsize=10, color=INK)
        x += 1.0
    axes.set(xlim=(0, x - 0.8), ylim=(0.4, 3.6))
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


def _end(axes: Any, x: float, name: str, does: str) -> None:
    """f or g, and far below it what it does."""
    _text(axes, x, name, 17)
    axes.plot([x, x], [1.75, 0.45], color=INK, linewidth=0.8, linestyle=":")
    axes.text(x, 0.35, does, ha="center", va="top", fontsize=10, color=INK)


def _legend(axes: Any, p: int, everybody: bool = True) -> None:
    from matplotlib.patches import Patch

    ranks: Sequence[Any] = [
        Patch(facecolor=COLOURS[r % len(COLOURS)], edgecolor=INK, label=f"rank {r}")
        for r in range(p)
    ]
    all_of_them = [Patch(facecolor=WHITE, edgecolor=INK, label="every rank")] * everybody
    axes.legend(handles=[*ranks, *all_of_them], loc="upper center", ncols=p + 1, frameon=False,
                bbox_to_anchor=(0.5, 0.04))  # fmt: skip
