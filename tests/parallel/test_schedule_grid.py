"""Grids: what is printed is read back; what cannot be read is named by line and cell."""

import random

import pytest

from minipar.errors import ScheduleError
from minipar.parallel.schedule import NAMES, Action, gpipe, named
from minipar.parallel.schedule_grid import grid, marked_grid, parse


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("stages", "micros"), [(1, 1), (3, 6), (12, 12)])
def test_what_is_printed_is_read_back(name, stages, micros):
    programs = named(name, stages, micros, 2 if name == "interleaved" else 1)
    assert parse(grid(programs)) == programs


def test_any_programs_are_read_back():
    draw = random.Random(1)
    for _ in range(200):
        programs = [
            [
                Action(draw.choice("FBIW"), draw.randrange(200), draw.randrange(12))
                for _ in range(draw.randrange(1, 9))
            ]
            for _ in range(draw.randrange(1, 14))
        ]
        assert parse(grid(programs)) == programs


def test_columns_are_aligned_and_chunk_0_is_not_written():
    assert grid([[Action("F", 0), Action("F", 10, 1)], [Action("B", 3)]]) == (
        "stage 0   F0    F10.1\nstage 1   B3"
    )


def test_a_person_may_leave_out_names_and_mark_time():
    written = """
        # stage 0 has nothing to do for a while
        Stage 0:  F0  F1  .   .  B0-- B1---   # a remark
        stage 1 | .   F0. B0-  F1 B1
    """
    with pytest.raises(ScheduleError, match=r"line 4, cell 1: 'F0\.'"):
        parse(written)
    assert parse(written.replace("F0.", "F0")) == parse("F0 F1 B0 B1\nF0 B0 F1 B1")


def test_a_stage_that_does_nothing_is_a_stage():
    assert parse("F0 B0\nstage 1\nstage 2 F0") == [parse("F0 B0")[0], [], [Action("F", 0)]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("F0 B0\n\nF0 X0 B0", r"line 3, cell 2: 'X0' is no action; write a phase"),
        ("F0 . . b0", r"line 1, cell 2: 'b0' is no action"),
        ("stage 0 F0 F", r"line 1, cell 2: 'F' is no action"),
        ("F0 F1.", r"line 1, cell 2: 'F1.' is no action"),
        ("F0 F-1", r"line 1, cell 2: 'F-1' is no action"),
        ("stage 0 F0\nstage 2 F0", r"line 2 says stage 2, but is the line of stage 1"),
        ("# nothing\n\n", r"there is no schedule in this text"),
    ],
)
def test_what_cannot_be_read_is_named_by_line_and_cell(text, says):
    with pytest.raises(ScheduleError, match=says):
        parse(text)


def test_marks_stand_around_their_cells_and_behind_the_end():
    assert marked_grid(parse("F0 F1 B1 B0\nF0 F1 B1"), [(0, 2), (1, 3)]) == (
        "stage 0   F0 F1 [B1] B0\nstage 1   F0 F1 B1   [?]"
    )


def test_of_a_large_grid_only_what_is_around_the_marks_is_shown():
    shown = marked_grid(gpipe(64, 1024), [(30, 500), (31, 502)]).splitlines()
    assert len(shown) == 8 and max(map(len, shown)) < 140
    assert shown[3].split()[:4] == ["stage", "30", "…", "F494"]
    assert "[F500]" in shown[3] and "[F502]" in shown[4] and shown[4].endswith("…")
