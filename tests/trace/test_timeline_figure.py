"""The timeline: what is on it, by the objects that matplotlib drew."""

import numpy as np
from matplotlib.colors import to_hex

from minipar import Cluster
from minipar.spans import Span, span
from minipar.trace.timeline_figure import AXES, KINDS, WAIT, draw_timeline
from minipar.trace.trace_file import Trace
from minipar.trace.traced import traced
from tests.trace.test_totals import RANK, TRACE


def test_what_happens_in_the_window_and_nothing_else_is_named():
    figure = draw_timeline(TRACE, 0, 100, "a title")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "a title"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["rank 0"]
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == [
        *("forward", "backward", "optimizer"),
        *("moving: tp", "moving: world", "waiting"),
    ]
    late = draw_timeline(TRACE, 86, 100).legends[0]
    assert [t.get_text() for t in late.get_texts()] == ["optimizer", "waiting"]
    assert "80% / 4% / 6%" in [t.get_text() for t in axes.texts]


def test_long_spans_have_their_name_and_short_ones_none():
    rank = RANK._replace(spans=[Span("forward", "F0", 0, 50), Span("backward", "B0", 50, 51)])
    (axes,) = draw_timeline(Trace("local", True, [rank], 0), 0, 100).axes
    texts = [t.get_text() for t in axes.texts]
    assert "F0" in texts and "B0" not in texts
    assert axes.get_xlabel() == "ms of virtual time"


def test_names_are_shown_as_they_are_also_with_dollars():
    rank = RANK._replace(spans=[Span("forward", "$x_1", 0, 50)])
    figure = draw_timeline(Trace("local", True, [rank], 0), 0, 100)
    figure.canvas.draw()


def test_no_two_colours_are_alike():
    every = [*KINDS.values(), *AXES.values()]
    assert len(set(every)) == len(every)


def boxes_of(axes, colour, rank):
    """[begin, end] in µs of each box of that colour in the band of the rank."""
    found = []
    for bars in axes.collections:
        if to_hex(bars.get_facecolor()[0]).upper() == colour:
            for path in bars.get_paths():
                (x0, y0), (x1, y1) = path.vertices.min(axis=0), path.vertices.max(axis=0)
                if rank <= y0 < y1 <= rank + 1:
                    found.append((round(x0 * 1e3), round(x1 * 1e3)))
    return sorted(set(found))


def test_in_virtual_time_messages_are_as_long_as_they_are_on_the_wire():
    def work(group):
        if group.rank == 0:
            with span("forward", "F0"):
                group.spend(10e-6)
                group.send(np.zeros(1000, np.uint8), 1)
        else:
            with span("forward", "F0"):
                group.recv(0)
                group.spend(4e-6)

    _, trace = traced(work, 2, cluster=Cluster(1e-6, 1e-9, 0))
    (axes,) = draw_timeline(trace, 0, trace.end).axes
    assert [boxes_of(axes, AXES["world"], rank) for rank in (0, 1)] == [[(10, 12)]] * 2
    assert [boxes_of(axes, WAIT, rank) for rank in (0, 1)] == [[], [(0, 10)]]
    named = [t.get_position()[0] for t in axes.texts if t.get_text() == "F0"]
    assert np.allclose(np.array(named) * 1e3, [5, 14])  # in the middle of what it computes
