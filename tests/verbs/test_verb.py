"""How every verb looks."""

import subprocess
import sys

import pytest


def minipar(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "minipar", *arguments], capture_output=True, text=True, **more
    )


@pytest.mark.parametrize(
    "verb",
    ["train", "run", "doctor", "bench", "bench train", "bench comm", "schedule", "tutorials"],
)
def test_every_verb_has_help_with_an_example(verb, command_line):
    *before, last = verb.split()
    done = command_line(*before, last, "--help")
    assert done.returncode == 0
    assert f"example:\n  minipar {verb}" in done.stdout
    assert last in command_line(*before, "--help").stdout


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
