"""Memory over time: a line for each rank, and a sentence where there is nothing to draw."""

import pytest

from minipar.errors import UsageError
from minipar.trace.memory_figure import draw_memory
from minipar.trace.trace_file import Trace
from tests.trace.test_totals import RANK, TRACE


def test_a_line_for_each_rank():
    rank = RANK._replace(memory=[(10, 2**20), (20, 3 * 2**20), (90, 2**21)])
    (axes,) = draw_memory(Trace("process", False, [rank, rank._replace(rank=1)], 0), 5, 50).axes
    assert [line.get_label() for line in axes.get_lines()] == ["rank 0", "rank 1"]
    assert axes.get_lines()[0].get_ydata().tolist() == [1, 3]


def test_threads_have_no_memory_of_their_own():
    with pytest.raises(UsageError, match="ranks that are processes"):
        draw_memory(TRACE, 0, 100)
