"""Memory over time: stacked by kind, one scale for all ranks, a sentence where there is nothing."""

import numpy as np
import pytest

from minipar.errors import UsageError
from minipar.spans import Span
from minipar.trace.memory_figure import draw_memory, held_between, peak_of
from minipar.trace.trace_file import Trace
from tests.trace.test_totals import RANK, TRACE

MB = 2**20
HELD = [(10, MB, 0, 0, 0, 0), (20, MB, 0, 0, 0, 3 * MB), (60, MB, 2 * MB, 0, 0, 0)]
SEEN = RANK._replace(held=HELD, memory=[(30, 50 * MB)])


def test_samples_go_on_from_before_the_window_to_its_end():
    table = held_between(SEEN, 15, 50)
    assert table[:, 0].tolist() == [15, 20, 50]
    assert (table[:, 1:].sum(axis=1) // MB).tolist() == [1, 4, 4]
    assert (peak_of(table) // MB).tolist() == [1, 0, 0, 0, 3]
    assert held_between(SEEN, 0, 5)[:, 1:].sum() == 0


def test_a_row_for_each_rank_with_one_scale():
    trace = Trace("process", False, [SEEN, SEEN._replace(rank=1, held=HELD[:1])], 0)
    figure = draw_memory(trace, 0, 100)
    first, second = figure.axes
    assert first.get_ylim() == second.get_ylim() and 4 < first.get_ylim()[1] < 5
    (weights, *_, activations) = first.collections
    assert weights.get_paths()[0].vertices[:, 1].max() == 1
    assert activations.get_paths()[0].vertices[:, 1].max() == 4
    assert [axes.texts[0].get_text() for axes in figure.axes] == [
        "most 4 MB\nresident 50 MB",
        "most 1 MB\nresident 50 MB",
    ]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["weights", "gradients", "activations"]


def test_what_no_rank_has_told_cannot_be_drawn():
    with pytest.raises(UsageError, match="no rank of this trace has told what memory it holds"):
        draw_memory(TRACE, 0, 100)


def test_activations_are_alike_in_all_steps_and_count_in_some():
    steps = [Span("forward", "", 10 * n, 10 * n + 9, step=n) for n in range(22)]
    trace = Trace("process", False, [SEEN._replace(spans=steps, end=220)], 0)
    with pytest.raises(UsageError, match="first 10 steps and in every 10th after them"):
        draw_memory(trace, 150, 160)
    for begin, end, some in ((150, 220, True), (200, 210, False), (0, 100, False)):
        title = draw_memory(trace, begin, end).get_suptitle()
        assert title.endswith("(activations in every 10th step)") == some


def test_ranks_that_left_nothing_are_left_out():
    from minipar.trace.trace_file import nothing_of

    figure = draw_memory(Trace("process", False, [SEEN, nothing_of(1)], 0), 0, 100)
    assert len(figure.axes) == 1 and np.isfinite(figure.axes[0].get_ylim()[1])
