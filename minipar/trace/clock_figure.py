"""The clocks of workers and the versions of servers over time, drawn.

A worker's clock is a line that goes up with each of its steps, broad and pale where it waits. The
band reaches from the slowest clock to the highest at which the rule gives weights: whoever is above
it has to wait. Lines of workers at the same clock lie a little beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from minipar.trace.figures import new_figure
from minipar.trace.served import ANY, COLOURS, Served, Steps, served, value_at
from minipar.trace.served import lacks as lacks
from minipar.trace.totals import waiting
from minipar.trace.trace_file import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("-", "--", ":", "-.")
SERVERS = (("#B0B0B0", 3.5), ("#222222", 1.2))  # colour and width, in turn: they may coincide
BAND = "#E6E6E6"
BROAD: Mapping[str, Any] = MappingProxyType(
    {"linewidth": 6, "alpha": 0.3, "solid_capstyle": "butt"}
)
BESIDE, WIDEST = 0.11, 0.6  # of a clock: between lines that would lie on each other; of all
APART = 0.06  # of the height: between two names at the right
SHORT = 500  # so many times shorter than the window, a wait is not drawn


class Window(NamedTuple):
    """From begin to end, in ns of the trace; in the figure it begins at 0."""

    begin: int
    end: int
    scale: float  # ns of a unit of the figure

    def x(self, when: int) -> float:
        return (min(max(when, self.begin), self.end) - self.begin) / self.scale

    def seen(self, steps: Steps, until: int) -> tuple[list[float], list[int]]:
        """The steps as x and y, from the beginning of the window to `until`."""
        rows = [(self.begin, value_at(steps, self.begin))]
        rows += [(at, value) for at, value in steps if self.begin < at < until]
        rows.append((until, rows[-1][1]))
        return [self.x(at) for at, _ in rows], [value for _, value in rows]


def draw_clocks(trace: Trace, begin: int, end: int, title: str = "") -> Figure:
    """The window from begin to end, in ns of the trace.  Raises: UsageError without servers."""
    known = served(trace)
    scale, unit = (1e6, "ms") if end - begin < 20e9 else (1e9, "s")
    window = Window(begin, end, scale)
    figure = new_figure()
    figure.set_size_inches(9.5, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    _draw_band(above, known, window)
    _draw_workers(above, trace, known, window)
    for n, (server, steps) in enumerate(known.versions.items()):
        colour, width = SERVERS[n % len(SERVERS)]
        look: dict[str, Any] = {
            "color": colour,
            "linewidth": width,
            "linestyle": DASHES[n % len(DASHES)],
        }
        below.step(*window.seen(steps, end), where="post", label=f"server {server}", **look)
    above.legend(frameon=False, fontsize=9, loc="upper left")
    below.legend(frameon=False, fontsize=9, loc="upper left")
    above.set(ylabel="clock", xlim=(0, window.x(end)))
    below.set(ylabel="version", xlabel=f"{unit}{' of virtual time' if trace.virtual else ''}")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.locator_params(axis="y", integer=True)
    above.set_title(title, loc="left", fontsize=11)
    return figure


def _draw_band(axes: Axes, known: Served, window: Window) -> None:
    if known.bound != ANY and known.clocks:
        x, y = window.seen(known.slowest(), window.end)
        low, high = ([value + by for value in y] for by in (-0.35, known.bound + 0.35))
        ahead = f", at most {known.bound} ahead of it" if known.bound else ""
        label = f"where the rule gives weights: at the slowest clock{ahead}"
        axes.fill_between(x, low, high, step="post", color=BAND, linewidth=0, label=label)


def _draw_workers(axes: Axes, trace: Trace, known: Served, window: Window) -> None:
    middle = (len(known.clocks) - 1) / 2
    names = []
    between = min(BESIDE, WIDEST / max(1, len(known.clocks)))
    for n, (worker, steps) in enumerate(known.clocks.items()):
        colour, beside = COLOURS[worker % len(COLOURS)], between * (middle - n)
        until = min(window.end, max(window.begin, known.gone.get(worker, window.end)))
        x, y = window.seen(steps, until)
        dashes, heights = (
            DASHES[worker // len(COLOURS) % len(DASHES)],
            [clock + beside for clock in y],
        )
        axes.step(x, heights, where="post", color=colour, linestyle=dashes, linewidth=1.5)
        if until < window.end:
            axes.plot(x[-1], heights[-1], "o", color=colour, markersize=4)
        for a, b in waiting(trace.ranks[worker]).tolist():
            part, height = [window.x(a), window.x(b)], value_at(steps, a) + beside
            if (part[1] - part[0]) * SHORT > window.x(window.end):
                axes.plot(part, [height, height], color=colour, **BROAD)
        names.append((heights[-1], f"worker {worker}: {y[-1]}", colour))
    axes.plot([], [], color=COLOURS[0], label="broad and pale: waits", **BROAD)
    _name(axes, names)


def _name(axes: Axes, names: Sequence[tuple[float, str, str]]) -> None:
    """Write each name at the right, as near its height as its neighbours let it be."""
    low, high = axes.get_ylim()
    names = sorted(names)
    places = [(height - low) / (high - low) for height, _, _ in names]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + APART)
    top = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top)
        top = places[i] - APART
    for place, (_, text, colour) in zip(places, names):
        axes.annotate(
            text, (1.01, place), xycoords="axes fraction", color=colour, va="center", fontsize=9
        )
