"""The histogram of staleness."""

import pytest

from minipar.trace import staleness_figure
from minipar.trace.staleness_figure import draw_staleness


@pytest.mark.parametrize("counts", [{0: 6, 1: 3, 4: 1}, {}, {40: 2}])
def test_bars_are_shares_of_all_pushes(counts, tmp_path, monkeypatch):
    made = []
    plain = staleness_figure.new_figure
    monkeypatch.setattr(staleness_figure, "new_figure", lambda: made.append(plain()) or made[-1])
    draw_staleness(counts, tmp_path / "s.png", "title", bound=3)
    heights = [bar.get_height() for bar in made[0].axes[0].patches]
    total = sum(counts.values())
    assert len(heights) == max([*counts, 3]) + 1
    for n, height in enumerate(heights):
        assert height == pytest.approx(100 * counts.get(n, 0) / max(1, total))
    assert (tmp_path / "s.png").stat().st_size > 1000
