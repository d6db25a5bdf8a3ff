"""What a form of data parallel does after the first gradient, laid out in virtual time.

    backward     [ d ][ c ][ b ][ a ]
    all_reduce             [ d, c ][ b, a ]          the picture that `draw_overlap` makes

The order is that of the real code, which runs once on `local` and is watched: which gradient is
final when, and which all_reduce begins after it. The times are declared: a gradient takes what you
say, an all_reduce what the ring's formula says. So the picture shows what overlap can give where
somebody can send while the rank computes, and no noise of the machine it was made on.

Letters: p ranks, α seconds per message, β seconds per byte.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from minipar import cost
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.nn import Module
from minipar.tensor import Tensor
from minipar.trace.timeline_figure import KINDS, OTHER
from minipar.trace.totals import common, length_of, merged

BACKWARD, ALL_REDUCE = "backward", "all_reduce"
SENT, PALE = "#D55E00", "#FBE3D6"


class Moment(NamedTuple):
    """A gradient became final (name), or an all_reduce of so many bytes began."""

    kind: str
    name: str
    nbytes: int


class Span(NamedTuple):
    """Something that lasts, in seconds."""

    kind: str
    name: str
    begin: float
    end: float


class Watched:
    """A group that notes its all_reduces."""

    def __init__(self, group: Group, noted: list[Moment]) -> None:
        self._group, self._noted = group, noted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    def all_reduce(self, x: Any, *arguments: Any, **options: Any) -> Any:
        self._noted.append(Moment(ALL_REDUCE, "", x.nbytes))
        return self._group.all_reduce(x, *arguments, **options)


def watch(
    form: Callable[..., Any], make_model: Callable[[], Any], loss: Callable[[Any], Tensor]
) -> list[Moment]:
    """A backward of loss(make_model()) on 2 ranks, with form(model, group): what rank 0 did.

    It is that of the second step: before the first one, ranks that use buckets ask each other more.
    """

    def work(group: Group) -> list[Moment]:
        noted: list[Moment] = []
        model: Module = make_model()
        for name, x in model.named_parameters():
            note = Moment(BACKWARD, name, x.data.nbytes)
            x.when_final(lambda _, note=note: noted.append(note))  # type: ignore[misc]
        parallel = form(model, Watched(group, noted))
        for _ in range(2):
            noted.clear()
            parallel.zero_grad()
            loss(model).backward()
            parallel.sync_gradients()
        return noted

    return run(work, 2)[0]


def in_time(
    moments: Sequence[Moment],
    seconds_of: Callable[[Moment], float],
    p: int,
    alpha: float,
    beta: float,
) -> list[Span]:
    """When each would begin and end on p ranks; backward never waits, all_reduces follow each other

    seconds_of: of the part of backward that ends with this gradient.
    """
    own = sent = 0.0
    spans = []
    for moment in moments:
        if moment.kind == BACKWARD:
            begin, own = own, own + seconds_of(moment)
            spans.append(Span(BACKWARD, moment.name, begin, own))
        else:
            begin = max(own, sent)
            sent = begin + cost.ring_all_reduce(p, moment.nbytes).seconds(alpha, beta, 0)
            spans.append(Span(ALL_REDUCE, moment.name, begin, sent))
    return spans


def end_of(spans: Sequence[Span]) -> float:
    """When the last gradient is complete on all ranks."""
    return max(span.end for span in spans)


def hidden(spans: Sequence[Span]) -> tuple[list[tuple[float, float]], float]:
    """The parts of what is sent that go on while something is computed; and what share they are."""
    sent, computed = (
        merged((round(s.begin * 1e9), round(s.end * 1e9)) for s in spans if f(s.kind))
        for f in (ALL_REDUCE.__eq__, ALL_REDUCE.__ne__)
    )
    both = common(sent, computed)
    share = length_of(both) / max(1, length_of(sent))
    return [(a / 1e9, b / 1e9) for a, b in both.tolist()], share


def draw_overlap(
    timelines: Mapping[str, Sequence[Span]], time: str = "ms of virtual time since backward began"
) -> Figure:
    """A picture of two rows, computing and sending, for each timeline by name.

    What is sent while nothing is computed is hatched: that is what it costs.
    """
    figure = Figure(figsize=(9.5, 1.0 + 1.1 * len(timelines)), dpi=130, layout="constrained")
    every = figure.subplots(len(timelines), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, spans) in zip(every, timelines.items()):
        _draw(axes, spans)
        parts, share = hidden(spans)
        ms = 1e3 * sum(end - begin for begin, end in parts)
        title = f"{name}: {end_of(spans) * 1e3:.1f} ms; sending is hidden for {ms:.1f} ms"
        axes.set_title(f"{title}, {share:.0%} of it", loc="left", fontsize=10)
    every[-1].set(xlabel=time, xlim=(0, None))
    _legend(figure, {span.kind for spans in timelines.values() for span in spans})
    return figure


def _draw(axes: Axes, spans: Sequence[Span]) -> None:
    """Both rows of one timeline."""
    for span in spans:
        box = [(span.begin * 1e3, (span.end - span.begin) * 1e3)]
        if span.kind == ALL_REDUCE:
            style: dict[str, Any] = {
                "facecolor": PALE,
                "edgecolor": SENT,
                "hatch": "////",
                "linewidth": 0.6,
            }
            axes.broken_barh(box, (-0.4, 0.8), **style)
        else:
            colour = KINDS.get(span.kind, OTHER)
            axes.broken_barh(box, (0.6, 0.8), color=colour, edgecolor="white", linewidth=0.8)
    boxes = [(a * 1e3, (b - a) * 1e3) for a, b in hidden(spans)[0]]
    axes.broken_barh(boxes, (-0.4, 0.8), facecolor=SENT, edgecolor="white", linewidth=0.8)
    axes.axvline(end_of(spans) * 1e3, color="#444444", linewidth=1)
    axes.set(yticks=(1, 0), yticklabels=("computes", "sends"), ylim=(-0.6, 1.6))
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, kinds: Collection[str]) -> None:
    marks = [Patch(color=colour, label=kind) for kind, colour in KINDS.items() if kind in kinds]
    if others := sorted(set(kinds) - {*KINDS, ALL_REDUCE}):
        marks.append(Patch(color=OTHER, label=", ".join(others)))
    marks.append(Patch(color=SENT, label="sent meanwhile: hidden"))
    marks.append(Patch(facecolor=PALE, edgecolor=SENT, hatch="////", label="sent: not hidden"))
    columns = len(marks) if len(marks) <= 5 else -(-len(marks) // 2)
    figure.legend(handles=marks, loc="outside lower center", ncols=columns, frameon=False)
