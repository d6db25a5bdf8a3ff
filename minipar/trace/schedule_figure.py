"""A timeline of a pipeline schedule, drawn: a row for each stage, time to the right.

Colour says the phase, and so does its lightness where there is no colour: F is dark, B is light.
Numbers say the micro-batch. Later chunks of a stage are paler. Where a stage waits it is hatched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from minipar.parallel.schedule_time import Span, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, HATCH = "#222222", "#555555", "#B8B8B8"
COLOURS = MappingProxyType(  # distinct for the colour-blind, too (Okabe & Ito)
    {"F": "#0072B2", "B": "#E69F00", "I": "#F0C75E", "W": "#009E73", "R": "#56B4E9"}
)
MEANS = MappingProxyType(
    {
        "F": "F forward",
        "B": "B backward",
        "I": "I gradient by the input",
        "W": "W gradient by the weights",
        "R": "R forward again",
    }
)
WHITE_ON = ("F", "W")  # where a number is written in white
HEIGHT = 0.8  # of a row
LETTER = 0.088  # inches, of the texts beside the rows
NARROW = 0.085  # inches per character, below which there is no room for a number


def draw_schedule(
    timeline: Timeline,
    figure: Figure | None = None,
    title: str = "",
    names: Sequence[str] = (),
    beside: Sequence[str] = (),
) -> Figure:
    """Draw what `simulate` gave; the figure.

    names: of the rows; stage 0, stage 1, ... if left out.
    beside: what stands at the right of each; how many micro-batches it stores if left out.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    stages = len(timeline.spans)
    chunks = 1 + max(span.action.chunk for row in timeline.spans for span in row)
    figure = figure or Figure(figsize=(8.6, 0.36 * min(stages, 24) + 1.3), dpi=150)
    width, height = figure.get_size_inches()
    names = names or [f"stage {i}" for i in range(stages)]
    beside = beside or [f" stores {peak / chunks:.3g}" for peak in timeline.peaks]
    left, right = (
        room + LETTER * max(map(len, texts)) for room, texts in ((0.07, names), (0.05, beside))
    )
    axes = figure.add_axes(
        (left / width, 0.72 / height, 1 - (left + right) / width, 1 - 1.1 / height)
    )
    axes.set(xlim=(0, timeline.length or 1), ylim=(stages - 0.5, -0.5))
    axes.set_xlabel("time", loc="right", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    chunks = 1 + max(span.action.chunk for row in timeline.spans for span in row)
    axes.set_yticks(range(stages), names if stages <= 24 else [])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "left", "right"]].set_visible(False)
    for i, row in enumerate(timeline.spans):
        axes.broken_barh(
            [(0, timeline.length)], (i - HEIGHT / 2, HEIGHT),
            facecolor="white", edgecolor=HATCH, hatch="/////", linewidth=0,
        )  # fmt: skip
        _row(axes, i, row, chunks)
        if stages <= 24:
            axes.annotate(
                beside[i], (1, i), xycoords=("axes fraction", "data"), va="center", color=INK
            )
    heading = f"{title}: " if title else ""
    axes.set_title(f"{heading}{timeline.bubble:.1%} bubble", loc="left", fontweight="bold")
    _legend(figure, {span.action.phase for row in timeline.spans for span in row}, chunks)
    return figure


def _row(axes: Axes, i: int, row: Sequence[Span], chunks: int) -> None:
    """The actions of stage i; numbers in those that have room for them."""
    per_time = axes.get_window_extent().width / axes.figure.dpi / axes.get_xlim()[1]  # inches
    bars: defaultdict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for (phase, micro, chunk), start, end in row:
        bars[phase, chunk].append((start, end - start))
        if (end - start) * per_time > NARROW * len(str(micro)):
            colour = "white" if phase in WHITE_ON and chunk == 0 else INK
            size = min(8.0, 72 * (end - start) * per_time / len(str(micro)))
            axes.text(
                (start + end) / 2, i, str(micro), ha="center", va="center", color=colour,
                fontsize=size, fontweight="bold",
            )  # fmt: skip
    thinnest = min((end - start for _, start, end in row if end > start), default=0.0) * per_time
    for (phase, chunk), spans in bars.items():
        axes.broken_barh(
            spans, (i - HEIGHT / 2, HEIGHT), facecolor=_colour(phase, chunk, chunks),
            edgecolor="white", linewidth=0.6 if thinnest > 0.04 else 0,
        )  # fmt: skip


def _colour(phase: str, chunk: int, chunks: int) -> tuple[float, float, float]:
    """The phase's colour, mixed with white for later chunks."""
    from matplotlib.colors import to_rgb

    white = 0.5 * chunk / max(1, chunks - 1)
    red, green, blue = (c + (1 - c) * white for c in to_rgb(COLOURS[phase]))
    return red, green, blue


def _legend(figure: Figure, phases: Collection[str], chunks: int) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=c, label=MEANS[p]) for p, c in COLOURS.items() if p in phases]
    patches.append(Patch(facecolor="white", edgecolor=HATCH, hatch="/////", label="waits"))
    if chunks > 1:
        pale = _colour(min(phases), chunks - 1, chunks)
        patches.append(Patch(facecolor=pale, label="paler: a later chunk"))
    figure.legend(
        handles=patches, loc="lower left", ncols=len(patches), frameon=False, fontsize=8.5,
        bbox_to_anchor=(0.05, 0.0),
    )  # fmt: skip
