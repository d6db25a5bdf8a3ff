"""The histogram of staleness."""

import pytest

from minipar.trace.staleness_figure import draw_staleness, draw_staleness_of
from tests.trace.test_served import TRACE


def bars(figure):
    """Of each bar: where it stands, from which height, and to which."""
    return [
        (round(bar.get_x() + bar.get_width() / 2), bar.get_y(), bar.get_y() + bar.get_height())
        for bar in figure.axes[0].patches
    ]


@pytest.mark.parametrize("counts", [{0: 6, 1: 3, 4: 1}, {}, {40: 2}])
def test_bars_are_shares_of_all_pushes(counts, tmp_path):
    figure = draw_staleness({"": counts}, "title", bound=3)
    total = sum(counts.values())
    assert bars(figure) == [
        (n, 0, pytest.approx(100 * counts.get(n, 0) / max(1, total)))
        for n in range(max(counts, default=0) + 1)
    ]
    assert figure.axes[0].get_xlabel().endswith("the rule allows 3)")
    figure.savefig(tmp_path / "s.png")


def test_workers_lie_on_each_other():
    figure = draw_staleness({"a": {0: 1, 1: 2}, "b": {1: 1}})
    assert bars(figure) == [(0, 0, 25), (1, 0, 50), (0, 25, 25), (1, 50, 75)]
    assert [text.get_text() for text in figure.axes[0].texts] == ["25 %", "75 %"]
    rare = draw_staleness({"": {0: 999, 3: 1}}).axes[0].texts
    assert [text.get_text() for text in rare] == ["100 %", "<1 %"]


def test_of_a_trace_each_worker_has_its_colour():
    figure = draw_staleness_of(TRACE, 0, 1000)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["worker 0", "worker 1"]
    assert bars(figure) == [(0, 0, 50), (1, 0, 25), (2, 0, 0), (0, 50, 50), (1, 25, 25), (2, 0, 25)]
    assert "mean 0.75, most 2; the rule allows 3" in figure.axes[0].get_xlabel()
