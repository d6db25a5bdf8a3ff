"""The command line: help with an example for every verb, and errors on one line."""

import json
import subprocess
import sys

import pytest


def minipar(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "minipar", *arguments], capture_output=True, text=True, **more
    )


@pytest.mark.parametrize("arguments", [[], ["trian"], ["run"]])
def test_a_wrong_word_is_a_usage_error(arguments, command_line):
    done = command_line(*arguments)
    assert done.returncode == 2 and "usage: minipar" in done.stderr


def test_version():
    assert minipar("--version").stdout.split()[0] == "minipar"


def test_an_option_after_the_script_is_pointed_out(tmp_path):
    (tmp_path / "script.py").write_text("")
    done = minipar("run", "script.py", "-n", "3", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "minipar: -n stands after the script, so it goes to the script\n"


def test_help_shows_the_defaults_of_config(command_line):
    text = " ".join(command_line("train", "--help").stdout.split())
    assert "optimizer steps (default: 1500, resnet 300, " in text
    assert "warm-up (default: 0.003, " in text and "of all random numbers (default: 0)" in text


def test_doctor(command_line):
    done = minipar("doctor", "--json")
    assert done.returncode == 0
    findings = json.loads(done.stdout)
    assert findings["shared memory"]["ok"] and "NumPy" in findings["software"]["found"]
    text = command_line("doctor").stdout
    assert all(name in text for name in findings)


def test_a_reader_that_goes_away_is_no_traceback():
    code = f"{sys.executable} -m minipar doctor | head -0"
    done = subprocess.run(code, shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
