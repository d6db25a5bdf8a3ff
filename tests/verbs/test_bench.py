"""`minipar bench`: its options and rows."""

import json
import subprocess
import sys

import pytest

from minipar.bench import ranks
from minipar.cli import main


def minipar(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "minipar", *arguments], capture_output=True, text=True, **more
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--ops all_reduse", "there is no call 'all_reduse'; is it all_reduce?"),
        ("--sizes 8,12X", "cannot read the size '12X'; write bytes, such as 8, 64K, 1M or 1.5M."),
        ("--ranks 0", "bench comm needs at least 1 rank and 1 round."),
        ("--algorithms rnig", "is it ring?"),
        ("--against glow", "there is no peer 'glow'; is it gloo?"),
        (
            "--ops barrier --algorithms ring",
            "there is no algorithm of barrier 'ring'; there are default, all",
        ),
    ],
)
def test_what_bench_comm_cannot_measure_is_one_sentence(options, says, command_line):
    done = command_line("bench", "comm", *options.split())
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("options", ["--ranks 0", "--ranks 2 --rounds 0"])
def test_bench_train_measures_something(options, command_line):
    done = command_line("bench", "train", *options.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "minipar: bench train needs at least 1 rank and 1 round.\n"


@pytest.mark.slow
def test_bench_comm_prints_rows_and_draws_them(tmp_path):
    options = ["--ops", "all_reduce", "--sizes", "8", "--rounds", "1", "--json", "--against"]
    figure = tmp_path / "comm.png"
    done = minipar("bench", "comm", *options, "", "--figure", str(figure))
    fit, row = map(json.loads, done.stdout.splitlines())
    assert fit["fit"]["ranks"] == row["ranks"] == 2 and row["seconds"] > 0
    assert figure.read_bytes().startswith(b"\x89PNG")


def exit_code(*arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


def test_a_bench_of_what_there_is_not_prints_no_table(capsys):
    for options in ("--model mpl", "--strategy dpp"):
        assert exit_code("bench", "train", "--ranks", "2", *options.split()) == 2
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("engine", "code"), [("minipar", 1), ("torch", 0)])
def test_only_a_peer_may_be_missing(engine, code, monkeypatch, capsys):
    row = {**ranks._row(engine, "mlp", "dp", 2), "note": "its ranks ended early: ..."}
    monkeypatch.setattr(ranks, "bench_ranks", lambda *args: [row])
    assert exit_code("bench", "train", "--ranks", "2") == code
    assert "its ranks ended early" in capsys.readouterr().out


def test_bench_ps_refuses_more_rows_than_there_are(capsys):
    assert exit_code("bench", "ps", "--rows", "100001") == 2
    assert "1 to 100000 rows" in capsys.readouterr().err
