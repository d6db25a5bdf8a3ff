"""The timeline: what is on it, by the objects that matplotlib drew."""

from minipar.spans import Span
from minipar.trace.timeline_figure import AXES, KINDS, draw_timeline
from minipar.trace.trace_file import Trace
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
