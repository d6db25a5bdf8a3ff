"""What is typed and what is answered, through the command line."""

import os
import re
import signal
import subprocess
import sys

import pytest

from minipar.cli import main
from tests.comm.mpirun import ROOT
from tests.jobs import eventually, started
from tests.stepping.test_stepper import RING


@pytest.fixture
def step(tmp_path, capsys):
    def ask(*commands, ranks=3, options=()):
        (tmp_path / "ring.py").write_text(RING)
        (tmp_path / "commands.txt").write_text("\n".join(commands))
        words = ["step", "-n", str(ranks), "--script", str(tmp_path / "commands.txt"), *options]
        with pytest.raises(SystemExit) as end:
            main([*words, "--width", "100", str(tmp_path / "ring.py")])
        return end.value.code, capsys.readouterr().out

    return ask


def events(out):
    return [int(n) for n in re.findall(r"^event (\d+)", out, re.M)]


def test_forward_back_and_to(step):
    code, out = step("n", "n 3", "", "back", "p 2", "g 7", "g 2", "q")
    assert code == 0
    assert events(out) == [0, 1, 4, 5, 4, 2, 7, 2]


def test_of_one_rank_only(step):
    _, out = step("r 1", "r 1", "r 9", "r")
    assert re.findall(r"^event \d+: (rank \d)", out, re.M)[1:] == ["rank 1", "rank 1"]
    assert out.count("r takes a rank, 0 to 2.") == 2


def test_breaks(step):
    _, out = step("b", "b rank 2, gets", "b bytes > 1e6", "c", "d 1", "d 5", "c", "b nonsense")
    assert "there are no breaks" in out and "d takes the number of a break" in out
    assert re.findall(r"^event \d+: (rank 2 gets)", out, re.M) == ["rank 2 gets"]
    assert "the run is over after" in out and "'nonsense' is no condition" in out


def test_values_and_chunks(step):
    _, out = step("n 20", "print x[:2]", "!group.rank", "show", "show x", "print", "show zzz", "l")
    assert "rank 1  float64[2] 10 11" in out and "rank 2  2" in out
    assert out.count("chunk 2") == 2 and "print and show take an expression" in out
    assert "NameError: name 'zzz' is not defined" in out
    assert '7 > y = group.all_reduce(x, algorithm="ring")' in out


def test_at_the_end_one_can_only_go_back(step):
    code, out = step("c", "n", "show", "back", "w", "h")
    assert "the run is over; go back" in out and "no collective is under way" in out
    total = int(re.search(r"over after (\d+) events", out)[1])
    assert events(out) == [0, total, total] and "q            leave" in out and code == 0


def test_wrong_questions(step, tmp_path, capsys):
    _, out = step("jump", "n many", "g", "q")
    assert "there is no 'jump'; h lists what you can type." in out
    assert "'many' is no number" in out and "g takes the number of an event." in out
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    unreadable = [["--script", str(tmp_path / name), __file__] for name in ("binary", "none")]
    for words in (["nothing.py"], ["-n", "0", __file__], *unreadable):
        with pytest.raises(SystemExit) as end:
            main(["step", *words])
        assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_what_cannot_be_done_is_said_and_the_session_goes_on(step):
    code, out = step("b bytes > 1e", "b rank 3, sends", "n -3", "n", "show group", "print 1+", "n")
    assert "'bytes > 1e' is no condition" in out and "'-3' is no number" in out
    assert "there is no rank 3; there are ranks 0 to 2." in out
    assert "SyntaxError" in out and events(out) == [0, 1, 2] and code == 0


def test_how_a_run_has_failed_stands_at_its_end(tmp_path, capsys):
    script, commands = tmp_path / "fails.py", tmp_path / "commands.txt"
    commands.write_text("c\n")

    def ends(line):
        script.write_text(f"import minipar\ngroup = minipar.init()\ngroup.barrier()\n{line}\n")
        with pytest.raises(SystemExit) as end:
            main(["step", "-n", "3", "--script", str(commands), str(script)])
        assert end.value.code == 1
        return capsys.readouterr().out

    out = ends("group.recv((group.rank + 1) % 3)")
    assert "Deadlock: no rank can go on" in out and "rank 2 --> rank 0   recv #0" in out
    assert "a circle: 0 -> 1 -> 2 -> 0" in out and out.count("has raised Deadlock") == 3
    out = ends("group.rank == 1 or group.recv(1)\nraise ValueError('why')")
    assert "; rank 1 has failed:" in out and "ValueError: why" in out and "fails.py" in out
    assert "has raised ValueError" in out


@pytest.mark.parametrize("commands", [None, "c\n"])
def test_ctrl_c_is_a_line(tmp_path, commands):
    """At the prompt, with stdin a pipe, and while the script computes."""
    busy = "open('go', 'w').close()\nwhile True:\n    pass\n" if commands else ""
    (tmp_path / "script.py").write_text(f"import minipar\nminipar.init()\n{busy}")
    words = ["step", "--width", "80", "script.py"]
    if commands:
        (tmp_path / "commands.txt").write_text(commands)
        words[1:1] = ["--script", "commands.txt"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-u", "-m", "minipar", *words]
    with started(command, cwd=tmp_path, env=env, stdin=subprocess.PIPE) as job:
        if commands:
            eventually((tmp_path / "go").exists)
        else:
            while "has not begun" not in job.stdout.readline():
                assert job.poll() is None
        job.send_signal(signal.SIGINT)
        assert job.wait(10) == 130
        assert job.stderr.read() == "minipar: interrupted\n"
