"""The command line: help with an example for every verb, and errors on one line."""

import json
import subprocess
import sys

import pytest

from minipar.__main__ import main as command
from minipar.cli import main


def minipar(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "minipar", *arguments], capture_output=True, text=True, **more
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "VERB is missing. See minipar --help."),
        ("trian", "there is no VERB 'trian'; is it train? See minipar --help."),
        ("run", "script is missing. See minipar run --help."),
        ("run -n two x.py", "-n/--ranks is an integer, not 'two'. See minipar run --help."),
        ("run --timeout", "--timeout needs a value. See minipar run --help."),
        ("step --width -1 x.py", "--width -1: a number of columns, from 1 on."),
        ("train gpt --memory-limit -5GB", "--memory-limit is a size above 0, like 500MB, 2GB, not"),
        ("train gpt --schedule foo --pp 2", "one of naive, gpipe, 1f1b, interleaved, zero-bubble."),
        ("train gpt --out /dev/null/x", "--out /dev/null/x cannot be a run folder: "),
        ("schedule foo", "zero-bubble, and forward, which has no backward."),
        ("tutorials copy /dev/null/x", "/dev/null/x cannot be a folder for the tutorials: "),
        ("schedule --check /nofile", "--check: [Errno 2] No such file or directory: '/nofile'"),
        ("bench train --device moon", "--device is cpu or cuda, not 'moon'."),
        ("bench train --ranks 2 --epoch -1", "--epoch is a number of rows, from 1 on, not -1."),
        ("bench train --threads 0", "--threads 0: a number from 1 on, or several with commas."),
        ("bench generate --rounds 0", "bench generate needs at least 1 thread and 1 round."),
        ("bench trace --backend foo", "there is no backend 'foo'; there are local, process"),
        ("bench ps --size 0", "--size 0: bytes of weights, from 4 on, such as 16M."),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments, says, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    said = capsys.readouterr()
    assert end.value.code == 2 and says in said.err and said.err.count("\n") == 1
    assert said.out == ""


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


def test_ctrl_c_while_the_command_line_is_imported(monkeypatch, capsys):
    class Interrupting:
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "minipar.cli", Interrupting())
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 130 and capsys.readouterr().err == "minipar: interrupted\n"
