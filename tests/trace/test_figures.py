"""The loss figure: that the curves are the numbers."""

import numpy as np

from minipar.trace.figures import _smooth, _width, draw_loss


def test_a_figure_of_a_run(tmp_path):
    metrics = [{"step": n, "loss": 5 / n} for n in range(1, 60)] + [{"step": 59, "val_loss": 0.2}]
    draw_loss(metrics, tmp_path / "loss.png", "title")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    draw_loss([], tmp_path / "empty.png")
    assert (tmp_path / "empty.png").exists()


def test_smoothing_is_the_mean_of_what_is_around():
    values = np.random.default_rng(0).normal(size=20)
    for width, before, after in ((4, 2, 1), (5, 2, 2)):
        plain = [values[max(0, n - before) : n + after + 1].mean() for n in range(20)]
        assert np.allclose(_smooth(values, width), plain)


def test_a_short_run_is_not_smoothed_away():
    assert [_width(n) for n in (1, 6, 19, 100, 500, 9999)] == [1, 1, 1, 10, 50, 50]
    falling = np.linspace(5, 1, 6)
    assert np.allclose(_smooth(falling, _width(6)), falling)
