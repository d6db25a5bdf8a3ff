"""The command line: help with an example for every verb, and errors on one line."""

import json
import subprocess
import sys

import pytest


def minipar(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "minipar", *arguments], capture_output=True, text=True, **more
    )


@pytest.mark.parametrize(
    "verb", ["train", "run", "doctor", "bench", "bench train", "bench comm", "tutorials"]
)
def test_every_verb_has_help_with_an_example(verb):
    *before, last = verb.split()
    done = minipar(*before, last, "--help")
    assert done.returncode == 0
    assert f"example:\n  minipar {verb}" in done.stdout
    assert last in minipar(*before, "--help").stdout


@pytest.mark.parametrize("arguments", [[], ["trian"], ["run"]])
def test_a_wrong_word_is_a_usage_error(arguments):
    done = minipar(*arguments)
    assert done.returncode == 2 and "usage: minipar" in done.stderr


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--step", "minipar: there is no option --step; is it --steps?"),
        ("--xyz=3", "minipar: there is no option --xyz=3; see --help."),
    ],
)
def test_a_misspelt_option_is_answered_with_the_right_one(option, says):
    done = minipar("train", "gpt", option, "10")
    assert (done.returncode, done.stderr) == (2, says + "\n")


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
def test_what_bench_comm_cannot_measure_is_one_sentence(options, says):
    done = minipar("bench", "comm", *options.split())
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and done.stderr.count("\n") == 1


def test_bench_comm_prints_rows_and_draws_them(tmp_path):
    options = ["--ops", "all_reduce", "--sizes", "8", "--rounds", "1", "--json", "--against"]
    figure = tmp_path / "comm.png"
    done = minipar("bench", "comm", *options, "", "--figure", str(figure))
    fit, row = map(json.loads, done.stdout.splitlines())
    assert fit["fit"]["ranks"] == row["ranks"] == 2 and row["seconds"] > 0
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_version():
    assert minipar("--version").stdout.split()[0] == "minipar"


def test_an_option_after_the_script_is_pointed_out(tmp_path):
    (tmp_path / "script.py").write_text("")
    done = minipar("run", "script.py", "-n", "3", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "minipar: -n stands after the script, so it goes to the script\n"


def test_help_shows_the_defaults_of_config():
    text = " ".join(minipar("train", "--help").stdout.split())
    assert "optimizer steps (default: 1500, resnet 300, " in text
    assert "warm-up (default: 0.003, " in text and "of all random numbers (default: 0)" in text


def test_doctor():
    done = minipar("doctor", "--json")
    assert done.returncode == 0
    findings = json.loads(done.stdout)
    assert findings["shared memory"]["ok"] and "NumPy" in findings["software"]["found"]
    text = minipar("doctor").stdout
    assert all(name in text for name in findings)


def test_a_reader_that_goes_away_is_no_traceback():
    code = f"{sys.executable} -m minipar doctor | head -0"
    done = subprocess.run(code, shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
