"""Workers in time: what is drawn is what they did."""

from minipar.trace.worker_figure import draw_workers


def test_rows_have_what_was_finished_and_what_was_not(tmp_path):
    steady, slow = [(n, n + 1.0) for n in range(9)], [(0.0, 4.0), (5.0, 9.0)]
    figure = draw_workers({"one": [steady, slow], "two": [slow]}, until_s=8.0)
    one, two = figure.axes
    assert one.get_title(loc="left") == "one: 9 gradients finished"
    assert two.get_title(loc="left") == "two: 1 gradients finished"
    assert [text.get_text() for text in one.texts] == [" 8", " 1"]
    ends = [path.get_extents().x1 for bars in one.collections for path in bars.get_paths()]
    assert max(ends) == 8.0  # nothing sticks out
    figure.savefig(tmp_path / "workers.png")
