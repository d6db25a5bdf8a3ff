"""The figure of clocks: its lines are the marks of the trace, within the window."""

from itertools import pairwise

import numpy as np
import pytest

from minipar.errors import UsageError
from minipar.trace.clock_figure import BESIDE, draw_clocks
from tests.trace.test_served import TRACE, trace_of


def lines(axes):
    """(x, y) of each line, its y without what sets it beside the others."""
    found = [(line.get_xdata().tolist(), line.get_ydata()) for line in axes.get_lines()]
    return [(x, np.round(y).tolist(), line) for (x, y), line in zip(found, axes.get_lines()) if x]


def test_each_worker_goes_up_by_its_steps_until_it_is_gone(tmp_path):
    figure = draw_clocks(TRACE, 0, 1000, "two workers")
    above, below = figure.axes
    quick, its_end, waits, slow, _ = lines(above)
    assert quick[:2] == ([0, 1e-4, 2e-4, 6e-4, 7e-4], [0, 1, 2, 3, 3])
    assert its_end[:2] == ([7e-4], [3])
    assert waits[:2] == ([2e-4, 5.1e-4], [2, 2]) and waits[2].get_linewidth() > 3
    assert slow[:2] == ([0, 5e-4, 5.5e-4], [0, 1, 1])
    assert quick[2].get_ydata()[0] - slow[2].get_ydata()[0] == pytest.approx(BESIDE)
    assert [text.get_text() for text in above.texts] == ["worker 1: 1", "worker 0: 3"]
    (server,) = lines(below)
    assert server[:2] == ([0, 1.05e-4, 2.05e-4, 5.05e-4, 6.05e-4, 1e-3], [0, 1, 2, 3, 4, 4])
    figure.savefig(tmp_path / "clocks.png")


def test_the_band_reaches_from_the_slowest_to_the_bound():
    (band,) = draw_clocks(TRACE, 0, 1000).axes[0].collections
    corners = band.get_paths()[0].vertices
    for at, slowest in ((0.5e-4, 0), (5.2e-4, 1), (5.8e-4, 2), (9e-4, 3)):
        low, high = edges_at(corners, at)
        assert (low, high) == (pytest.approx(slowest - 0.35), pytest.approx(slowest + 1.35))


def edges_at(corners, x):
    """Where a vertical line at x crosses the outline."""
    found = {a[1] for a, b in pairwise(corners) if min(a[0], b[0]) < x < max(a[0], b[0])}
    return min(found), max(found)


def test_a_window_begins_with_the_clocks_of_then():
    above, below = draw_clocks(TRACE, 150, 550).axes
    assert lines(above)[0][:2] == ([0, 5e-5, 4e-4], [1, 2, 2])
    assert lines(below)[0][1] == [1, 2, 3, 3]


def test_async_has_no_band_and_no_servers_no_figure():
    free = [
        [m._replace(value=-1) if m.kind == "bound" else m for m in r.marks] for r in TRACE.ranks
    ]
    assert not draw_clocks(trace_of(free), 0, 1000).axes[0].collections
    with pytest.raises(UsageError, match="no clocks"):
        draw_clocks(trace_of(([],)), 0, 1000)
