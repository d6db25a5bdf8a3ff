"""Bytes by axis and operation: as many as the totals say, stacked without gaps."""

import pytest

from minipar.errors import UsageError
from minipar.spans import Span
from minipar.trace.bytes_figure import draw_bytes, sent_by, styles
from minipar.trace.totals import bytes_by_axis
from minipar.trace.trace_file import Trace
from tests.trace.test_totals import RANK, call

MB = 2**20
MESSAGES = [
    call(11, 12, "all_reduce", 8, 1, 3 * MB),
    call(20, 21, "all_gather", 8, 1, MB),
    call(60, 60, "send", 0, 1, 2 * MB),
    call(61, 61, "barrier", 0, 1, 0),
]
TRACE = Trace("process", False, [RANK._replace(messages=MESSAGES), RANK._replace(rank=1)], 0)


def test_operations_of_an_axis_add_up_to_its_bytes():
    for row, axes in zip(sent_by(TRACE, 0, 100), bytes_by_axis(TRACE, 0, 100), strict=True):
        found = {a: sum(n for (axis, _), n in row.items() if axis == a) for a in axes}
        assert found == dict(axes)
    assert sent_by(TRACE, 15, 60)[0] == {("tp", "all_gather"): MB}


def test_of_a_step_beside_nothing_counts():
    steps = [Span("forward", "", 0, 30, step=0), Span("forward", "", 50, 70, step=1)]
    trace = Trace("process", False, [RANK._replace(spans=steps, messages=MESSAGES)], 0)
    assert sent_by(trace, 15, 80)[0] == {("world", "send"): 2 * MB}
    assert sent_by(trace, 15, 60)[0] == {("tp", "all_gather"): MB}  # no step is whole


def test_bars_follow_each_other_and_name_what_counts():
    (axes,) = draw_bytes(TRACE, 0, 100).axes
    bars = [bar for bar in axes.patches if bar.get_y() < 0 and bar.get_width()]
    assert [bar.get_width() for bar in bars] == [3, 1, 2]
    assert [bar.get_x() for bar in bars] == [0, 3, 4]
    words = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert words == ["tp all_reduce", "tp all_gather", "world send"]


def test_the_largest_of_an_axis_has_its_full_colour():
    found = styles([{("tp", "a"): 1, ("tp", "b"): 9, ("dp", "c"): 1, ("odd", "d"): 1}])
    assert list(found) == [("dp", "c"), ("tp", "b"), ("tp", "a"), ("odd", "d")]
    assert found["tp", "b"][0] == "#e69f00" and found["dp", "c"][1] != found["tp", "b"][1]


def test_where_nothing_was_sent():
    alone = Trace("process", False, [RANK._replace(messages=[])], 0)
    with pytest.raises(UsageError, match="no rank of this trace has sent anything"):
        draw_bytes(alone, 0, 100)
    with pytest.raises(UsageError, match="nothing was sent in this part"):
        draw_bytes(TRACE, 90, 100)
