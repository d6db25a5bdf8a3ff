"""Figures of a run, drawn with matplotlib, which is imported only here and only when drawing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE = "#0072B2", "#D55E00"  # distinct for the colour-blind, too


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Without what matplotlib says on stderr if it cannot write its settings (a read-only home)."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def new_figure() -> Figure:
    """An empty one, in the size and style of all that a run leaves."""
    with _without_remarks():
        from matplotlib.figure import Figure

    return Figure(figsize=(7, 4.2), dpi=150, layout="constrained")


def draw_loss(
    metrics: Sequence[dict[str, Any]], path: Path, title: str = "", unit: str = "nats"
) -> None:
    """Training and validation loss over steps.

    metrics: records with "step" and "loss" or "val_loss", as in metrics.jsonl.
    """
    train = [(m["step"], m["loss"]) for m in metrics if "loss" in m]
    val = [(m["step"], m["val_loss"]) for m in metrics if "val_loss" in m]
    figure = new_figure()
    axes = figure.subplots()
    if train:
        steps, losses = np.array(train).T
        axes.plot(steps, losses, color=BLUE, alpha=0.25, linewidth=0.8)
        width = _width(len(losses))
        label = f"training (mean of {width})" if width > 1 else "training"
        axes.plot(steps, _smooth(losses, width), color=BLUE, linewidth=1.8, label=label)
    if val:
        steps, losses = np.array(val).T
        axes.plot(steps, losses, "o-", color=ORANGE, linewidth=1.8, label="validation")
        axes.annotate(
            f"{losses[-1]:.3f}",
            (steps[-1], losses[-1]),
            xytext=(0, 9),
            textcoords="offset points",
            color=ORANGE,
            ha="right",
            fontweight="bold",
        )
    axes.set(xlabel="step", ylabel=f"loss ({unit})", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    if train or val:
        axes.legend(frameon=False)
    figure.savefig(path)


def _width(steps: int) -> int:
    """How many steps a mean is over: 50, but a tenth of a short run, whose fall it would hide."""
    return max(1, min(50, steps // 10))


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the `width` values around each (at the ends, of those that there are)."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    place = np.arange(len(values))
    starts = np.maximum(0, place - width // 2)
    ends = np.minimum(len(values), place + width - width // 2)
    return (sums[ends] - sums[starts]) / (ends - starts)
