"""Every cell, arrow and panel that belongs into the figure is in it, and nothing overlaps."""

from __future__ import annotations

from itertools import combinations

import matplotlib.figure
import pytest
from matplotlib.patches import FancyArrowPatch

from minipar.trace.chunk_figure import _lanes, draw_chunks
from minipar.trace.chunks import chunk_snapshots


@pytest.mark.parametrize("p", [1, 2, 4])
@pytest.mark.parametrize("name", ["ring", "tree", "halving_doubling", "naive"])
def test_a_panel_for_each_step_and_an_arrow_for_each_move(name: str, p: int) -> None:
    snapshots = chunk_snapshots("all_reduce", name, p)
    figure = draw_chunks(snapshots)
    titled = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in titled] == [s.title for s in snapshots]
    for axes, snapshot in zip(titled, snapshots):
        arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
        assert len(arrows) == len(snapshot.moves)
        numbers = [text for text in axes.texts if text.get_text().isdigit()]
        assert len(numbers) == sum(int(x).bit_count() for x in snapshot.parts.flat)


@pytest.mark.parametrize("p", [4, 8])
@pytest.mark.parametrize("name", ["ring", "halving_doubling", "naive"])
def test_arrows_of_one_lane_do_not_touch(name: str, p: int) -> None:
    for snapshot in chunk_snapshots("all_reduce", name, p):
        lanes, count = _lanes(snapshot.moves)
        assert all(lane < count for lane in lanes)
        for (a, lane_a), (b, lane_b) in combinations(zip(snapshot.moves, lanes), 2):
            if (a.chunk, lane_a) == (b.chunk, lane_b):
                assert max(a[:2]) < min(b[:2]) or max(b[:2]) < min(a[:2])


def test_a_call_that_only_copies_has_one_row() -> None:
    figure = draw_chunks(chunk_snapshots("broadcast", "tree", 4), title="broadcast")
    assert figure.get_suptitle() == "broadcast"
    assert len({axes.get_position().y0 for axes in figure.axes if axes.get_title()}) == 1


def test_it_draws_into_a_figure_that_it_is_given(tmp_path) -> None:
    figure = matplotlib.figure.Figure()
    assert draw_chunks(chunk_snapshots("reduce", "tree", 2), figure) is figure
    figure.savefig(tmp_path / "chunks.png")


@pytest.mark.slow
def test_many_steps_go_on_in_the_next_row() -> None:
    def chain(link, buf) -> None:
        if link.rank:
            buf[...] = link.recv(link.rank - 1)
        if link.rank < link.size - 1:
            link.send(buf, link.rank + 1)

    figure = draw_chunks(chunk_snapshots("broadcast", chain, 8))  # a start and 7 steps
    rows = [round(axes.get_position().y0, 3) for axes in figure.axes if axes.get_title()]
    assert [rows.count(row) for row in sorted(set(rows), reverse=True)] == [5, 3]
