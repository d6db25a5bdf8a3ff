"""`minipar verify`: rows, exit codes, and wrong words."""

import json
import subprocess
import sys

import pytest

from minipar import verify as engine
from minipar.cli import main


def verify(*options):
    command = [sys.executable, "-m", "minipar", "verify", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_rows_as_json_and_exit_code_0():
    done = verify("--strategies", "dp,zero1", "--ranks", "2,3", "--backends", "local", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["strategy"], r["ranks"]) for r in rows] == [
        *(("dp", 2), ("zero1", 2), ("dp", 3), ("zero1", 3))
    ]
    for row in rows:
        assert row.keys() >= {"strategy", "layout", "backend", "ranks", "tolerance"}
        assert row["ok"] and row["max_error"] < row["tolerance"] == 1e-10


def test_a_row_that_is_wrong_is_exit_code_1(monkeypatch, capsys):
    """A strategy that forgets to send anything."""
    from minipar.parallel.data import DataParallel

    monkeypatch.setattr(DataParallel, "sync_gradients", lambda self, rows=1.0: None)
    with pytest.raises(SystemExit) as end:
        main(["verify", "--strategies", "dp", "--ranks", "2", "--backends", "local"])
    assert end.value.code == 1
    said = capsys.readouterr().out
    assert "WRONG" in said and "0 of 1 are what they should be" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--strategies", "pd"], "there is no strategy 'pd'; there are dp,"),
        (["--backends", "locla"], "there is no backend 'locla'"),
        (["--ranks", "two"], "--ranks two: a number of ranks"),
        (["--rank", "2"], "there is no option --rank; is it --ranks?"),
    ],
)
def test_wrong_words_are_one_sentence(options, says, command_line):
    done = command_line("verify", *options)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_it_is_the_whole_table_by_default():
    assert set(engine.STRATEGIES) >= {"dp", "zero3", "local-sgd", "powersgd"}
