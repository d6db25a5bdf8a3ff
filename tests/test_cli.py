"""The command line: help with an example for every verb, and errors on one line."""

import json
import subprocess
import sys

import pytest


def minipar(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "minipar", *arguments], capture_output=True, text=True, **more
    )


@pytest.mark.parametrize("verb", ["train", "run", "doctor", "bench", "tutorials"])
def test_every_verb_has_help_with_an_example(verb):
    done = minipar(verb, "--help")
    assert done.returncode == 0
    assert f"example:\n  minipar {verb}" in done.stdout
    assert verb in minipar("--help").stdout


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train", "gpt", "--pd", "2"], ["run"]])
def test_a_wrong_word_is_a_usage_error(arguments):
    done = minipar(*arguments)
    assert done.returncode == 2 and "usage: minipar" in done.stderr


def test_help_shows_the_defaults_of_config():
    text = " ".join(minipar("train", "--help").stdout.split())
    assert "optimizer steps (1500)" in text and "largest learning rate (0.003)" in text


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
