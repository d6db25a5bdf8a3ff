"""`minipar schedule`: what it prints, and what it answers to wrong questions."""

import io
import json

import pytest

from minipar.cli import main
from minipar.parallel.schedule import NAMES, named
from minipar.parallel.schedule_grid import grid, parse


@pytest.fixture
def schedule(capsys):
    def ask(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["schedule", *map(str, arguments)])
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return ask


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_is_printed_with_its_formulas(schedule, name):
    code, out, err = schedule(name, "--stages", 3, "--microbatches", 6)
    picture, facts = out.split("\n\n")
    assert code == 0 and err == ""
    assert parse(picture) == named(name, 3, 6, 2 if name == "interleaved" else 1)
    _, bubble, stores = facts.splitlines()
    for line in (bubble, stores):  # the formula says the same
        measured, _, formula = line.partition("   (")[0].partition("   by the formula ")
        assert measured.split()[1:] == formula.split()


def test_the_whole_text(schedule):
    assert schedule("gpipe", "--stages", 2, "--microbatches", 2) == (
        0,
        "stage 0   F0 F1 .  .  .  B1--- B0---\n"
        "stage 1   .  F0 F1 B1--- B0--- .  .\n"
        "\n"
        "takes   9\n"
        "bubble  33.3 %   by the formula 33.3 %\n"
        "stores  2 2   by the formula 2 2   (micro-batches of activations, at most, by stage)\n",
        "",
    )


def test_as_json(schedule):
    code, out, _ = schedule("interleaved", "--stages", 2, "--microbatches", 2, "--json")
    found = json.loads(out)
    assert code == 0 and found["chunks"] == 2 and found["length"] == found["spans"][0][-1][2]
    assert parse("\n".join(found["programs"])) == named("interleaved", 2, 2, 2)
    assert found["bubble"] == pytest.approx(found["bubble_formula"]) == pytest.approx(1 / 5)
    assert found["stored"] == found["stored_formula"] == [2.0, 1.5]


def test_where_stages_are_uneven_there_is_no_formula(schedule):
    ask = "1f1b", "--stages", 2, "--microbatches", 2, "--json"
    for uneven in (("--forward", "1,2"), ("--link", "0.5"), ("--recompute", "1")):
        assert "bubble_formula" not in json.loads(schedule(*ask, *uneven)[1])
    assert json.loads(schedule(*ask, "--backward", "2,4")[1])["length"] == 13


def test_a_figure_is_drawn(schedule, tmp_path):
    assert schedule("zero-bubble", "--figure", tmp_path / "z.png")[0] == 0
    assert (tmp_path / "z.png").read_bytes().startswith(b"\x89PNG")


def test_a_grid_in_a_file_is_checked_and_timed(schedule, tmp_path):
    file = tmp_path / "grid.txt"
    file.write_text(grid(named("1f1b", 3, 4)))
    code, out, _ = schedule("--check", file)
    assert code == 0 and "takes   18" in out and "stores  3 2 1" in out and "formula" not in out
    assert "by the formula" in schedule("1f1b", "--check", file)[1]
    assert schedule("1f1b", "--stages", 3, "--microbatches", 4, "--check", file)[0] == 0


def test_a_grid_from_a_pipe(schedule, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("F0 B0"))
    assert schedule("--check", "-")[0] == 0


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        (
            "F0 F1 B1 B0",
            "1f1b",
            "the grid can be run, but is not 1f1b: stage 0 does F1 where 1f1b ",
        ),
        ("F0 B0 F1 B1 ", "forward", "not forward: stage 0 does B0 where forward does F1.\n"),
        ("F0 F1", "gpipe", "not gpipe: stage 0 does nothing more where gpipe does B1.\n"),
        ("F0 B0", "forward", "not forward: stage 0 does B0 where forward does nothing more.\n"),
        ("F0 B0 F0", "", "stage 0 does F0 after F0 and B0"),
        ("F0 Q0", "", "line 1, cell 2: 'Q0' is no action"),
    ],
)
def test_a_grid_that_is_wrong_is_an_error_with_the_cell(schedule, tmp_path, text, name, says):
    file = tmp_path / "grid.txt"
    file.write_text(text)
    code, out, err = schedule(*[name] * bool(name), "--check", file)
    assert code == 2 and out == "" and says in err
    assert "Q0" in text or "[" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "say which schedule: naive, gpipe, 1f1b, interleaved, zero-bubble, forward, or --ch"),
        ("gpip", "there is no schedule gpip; there are naive, gpipe, 1f1b"),
        ("gpipe --stages 0", "a schedule of 0 stages and 8 micro-batches: there must be one"),
        ("interleaved --microbatches 6", "6 micro-batches are not whole groups: take a multiple"),
        ("1f1b --chunks 2", "1f1b has one chunk per stage, not 2"),
        ("1f1b --chunks 0", "1f1b has one chunk per stage, not 0"),
        ("gpipe --forward x", "--forward x: give a time, or one for each stage with commas."),
        ("gpipe --forward 1,2", "forward has 2 times; give one, or one for each of 4 stages."),
        ("gpipe --link -1", "link is -1.0: a time is 0 or more."),
        ("gpipe --figure x.foo", "--figure x.foo: Format 'foo' is not supported"),
        ("gpipe --micro 3", "there is no option --micro; is it --microbatches?"),
        ("gpipe --stages 3 --check {grid}", "the grid has 1 stage, not 3."),
        ("--check {binary}", "this file is no text."),
    ],
)
def test_a_wrong_question_is_answered_with_one_sentence(schedule, options, says, tmp_path):
    (tmp_path / "grid").write_text("F0 B0")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    files = {"grid": tmp_path / "grid", "binary": tmp_path / "binary"}
    code, out, err = schedule(*options.format(**files).split())
    assert code == 2 and says in err and err.count("\n") == 1
    assert out == "" or "--figure" in options


def test_a_file_that_is_not_there_is_named(schedule):
    code, _, err = schedule("--check", "/no/such/file")
    assert code == 2 and "/no/such/file" in err
