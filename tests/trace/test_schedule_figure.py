"""What happens and what waits is in the figure, told by more than its colour."""

import pytest

from minipar.parallel.schedule import NAMES, named
from minipar.parallel.schedule_time import Times, simulate
from minipar.trace.schedule_figure import COLOURS, draw_schedule


def numbers(figure):
    return [text for text in figure.axes[0].texts if text.get_text().isdigit()]


@pytest.mark.parametrize("name", NAMES)
def test_every_action_is_a_bar_with_its_number(name):
    timeline = simulate(named(name, 3, 6, 2 if name == "interleaved" else 1))
    figure = draw_schedule(timeline, title=name)
    (axes,) = figure.axes
    assert f"{name}: {timeline.bubble:.1%} bubble" == axes.get_title(loc="left")
    boxes = [
        path.get_extents()
        for bars in axes.collections
        if not bars.get_hatch()
        for path in bars.get_paths()
    ]
    places = sorted((round(box.x0, 9), round(box.x1, 9), round(box.y0 + 0.4)) for box in boxes)
    spans = [(i, span) for i, row in enumerate(timeline.spans) for span in row]
    assert places == sorted((round(s.start, 9), round(s.end, 9), i) for i, s in spans)
    said = sorted((round(t.get_position()[1]), int(t.get_text())) for t in numbers(figure))
    assert said == sorted((i, span.action.micro) for i, span in spans)


def test_where_a_stage_waits_it_is_hatched_behind_the_bars():
    (axes,) = draw_schedule(simulate(named("gpipe", 2, 2))).axes
    hatched = [bar for bar in axes.collections if bar.get_hatch()]
    assert len(hatched) == 2
    for row in hatched:
        (path,) = row.get_paths()
        assert (path.get_extents().x0, path.get_extents().x1) == (0, axes.get_xlim()[1])


def test_the_legend_has_the_phases_that_there_are():
    def legend(*which, **times):
        figure = draw_schedule(simulate(named(*which), Times(**times)))
        return [text.get_text() for text in figure.legends[0].get_texts()]

    assert legend("gpipe", 2, 2) == ["F forward", "B backward", "waits"]
    assert "R forward again" in legend("gpipe", 2, 2, recompute=1)
    assert "paler: a later chunk" in legend("interleaved", 2, 2, 2)


def test_phases_differ_in_lightness_where_they_stand_side_by_side():
    """As a printer without colour has them (Rec. 601)."""

    def light(colour):
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    assert light(COLOURS["B"]) - light(COLOURS["F"]) > 0.2
    assert light(COLOURS["I"]) - light(COLOURS["W"]) > 0.2


def test_what_is_too_narrow_for_a_number_has_none():
    assert numbers(draw_schedule(simulate(named("1f1b", 4, 512)))) == []
