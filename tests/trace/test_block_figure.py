import pytest

from minipar.trace.block_figure import COLOURS, draw_heads, draw_pair, draw_positions


def colours(figure):
    """The colours of the rectangles, in the order in which they were drawn."""
    from matplotlib.colors import to_hex

    return [to_hex(patch.get_facecolor()).upper() for patch in figure.axes[0].patches]


@pytest.mark.parametrize("draw", [draw_pair, draw_heads, draw_positions])
@pytest.mark.parametrize("p", [2, 4])
def test_it_can_be_drawn_and_every_rank_has_its_colour(draw, p, tmp_path):
    figure = draw(p)
    assert set(COLOURS[:p]) <= set(colours(figure))
    figure.savefig(tmp_path / "blocks.png")


def test_heads_are_cut_in_each_of_the_three():
    a, b = COLOURS[:2]
    right, wrong = colours(draw_heads(2, 4))[:12], colours(draw_heads(2, 4))[12:]
    assert right == [a, a, b, b] * 3
    assert wrong == [a] * 6 + [b] * 6
