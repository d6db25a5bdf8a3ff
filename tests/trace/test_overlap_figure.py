"""Overlap from a trace: what is hidden is what the totals call overlapped."""

import pytest

from minipar.errors import UsageError
from minipar.trace.overlap import ALL_REDUCE, hidden
from minipar.trace.overlap_figure import draw_overlap_of, spans_of
from minipar.trace.totals import computing, length_of, shares
from minipar.trace.trace_file import Trace
from tests.trace.test_totals import RANK, TRACE


@pytest.mark.parametrize(("begin", "end"), [(0, 100), (15, 55), (45, 95)])
def test_hidden_is_what_the_totals_call_overlapped(begin, end):
    spans = spans_of(RANK, begin, end)
    parts, share = hidden(spans)
    found = shares(RANK, begin, end)
    assert round(sum(b - a for a, b in parts) * 1e9) == found.overlapped > 0
    sent = sum(s.end - s.begin for s in spans if s.kind == ALL_REDUCE)
    assert share == pytest.approx(found.overlapped / 1e9 / sent)


def test_a_moment_of_computation_counts_once():
    spans = [s for s in spans_of(RANK, 0, 100) if s.kind != ALL_REDUCE]
    assert [s.kind for s in spans] == ["forward", "forward", "backward", "optimizer"]
    total = sum(s.end - s.begin for s in spans) * 1e9
    assert round(total) == length_of(computing(RANK))


def test_a_picture_for_each_rank_that_did_something():
    idle = RANK._replace(rank=1, spans=[], calls=[], apart=[])
    figure = draw_overlap_of(Trace("process", False, [RANK, idle], 0), 0, 100, "a step")
    assert [axes.get_title(loc="left").partition(":")[0] for axes in figure.axes] == ["rank 0"]
    with pytest.raises(UsageError, match="has called a collective, which could overlap"):
        draw_overlap_of(Trace("process", False, [idle], 0), 0, 100)
    with pytest.raises(UsageError, match="no rank did anything"):
        draw_overlap_of(TRACE, 95, 100)
