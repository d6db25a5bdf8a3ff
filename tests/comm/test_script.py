"""`minipar run`: scripts on ranks, their output, their arguments, their failures."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minipar.comm.environment import python_command
from tests.jobs import started

BOTH = pytest.mark.parametrize("backend", ["process", "local"])

HELLO = """
import sys, minipar, numpy as np
world = minipar.init()
print("argument", sys.argv[1])
print("rank", world.rank, "of", world.size)
print("sum", world.all_reduce(np.ones(1))[0], file=sys.stderr)
assert __name__ == "__main__"
"""

FAILS = """
import minipar
world = minipar.init()

def inner():
    if world.rank == 1:
        raise RuntimeError("the reason")
    world.barrier()

inner()
"""


def minipar_run(tmp_path, source, *options, arguments=()):
    (tmp_path / "script.py").write_text(source)
    command = [sys.executable, "-m", "minipar", "run", *options, "script.py", *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)


def who_said(output, p):
    """Line -> ranks, from labelled output; on a busy machine a line of all may come in parts."""
    said = {}
    for line in output.splitlines():
        label, _, text = line.partition("] ")
        ranks = range(p) if label == f"[all {p}" else map(int, label[len("[rank ") :].split(","))
        for rank in ranks:
            assert rank not in said.setdefault(text, set())
            said[text].add(rank)
    return said


@BOTH
def test_every_rank_runs_the_script(tmp_path, backend):
    done = minipar_run(tmp_path, HELLO, "-n", "3", "--backend", backend, arguments=["x y"])
    assert done.returncode == 0, done.stderr
    said = who_said(done.stdout, 3)
    assert said == {"argument x y": {0, 1, 2}} | {f"rank {r} of 3": {r} for r in range(3)}
    assert who_said(done.stderr, 3) == {"sum 3.0": {0, 1, 2}}


@BOTH
def test_a_failing_rank_is_named_and_its_traceback_is_last(tmp_path, backend):
    begun = time.monotonic()
    done = minipar_run(tmp_path, FAILS, "-n", "3", "--backend", backend)
    assert time.monotonic() - begun < 5 * 2
    assert done.returncode == 1
    *_, error, summary = done.stderr.splitlines()
    assert error == "[rank 1] RuntimeError: the reason"
    assert summary == "minipar: rank 1 raised RuntimeError: the reason"
    trace = [line for line in done.stderr.splitlines() if line.startswith("[rank 1]")]
    assert trace[0] == "[rank 1] Traceback (most recent call last):"
    assert "script.py" in trace[1] and not any("minipar/comm" in line for line in trace)


@BOTH
@pytest.mark.parametrize(("code", "status"), [("0", 0), ("3", 3), ("None", 0), ("'why'", 1)])
def test_exit_codes_of_scripts(tmp_path, backend, code, status):
    done = minipar_run(tmp_path, f"import sys; sys.exit({code})", "-n", "1", "--backend", backend)
    assert done.returncode == status, done.stderr
    if code == "'why'":
        assert "why" in done.stderr


@BOTH
def test_a_file_of_output_for_each_rank(tmp_path, backend):
    done = minipar_run(
        tmp_path, HELLO, "-n", "2", "--log-dir", "logs", "--backend", backend, arguments=["a"]
    )
    assert done.returncode == 0
    for rank in range(2):
        lines = (tmp_path / f"logs/rank-{rank}.log").read_text().splitlines()
        assert sorted(lines) == ["argument a", f"rank {rank} of 2", "sum 2.0"]


def test_files_beside_the_user_do_not_replace_pythons_own(tmp_path):
    (tmp_path / "random.py").write_text("raise ImportError('not the one that you want')")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/script.py").write_text("import random; print(random.randint(1, 1))")
    command = python_command("minipar.cli", "run", "elsewhere/script.py")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert who_said(done.stdout, 2) == {"1": {0, 1}}, done.stderr


def test_ctrl_c_is_one_line(tmp_path):
    source = """
import minipar, time
world = minipar.init()
print("here", flush=True)
while True:
    world.barrier()
"""
    (tmp_path / "script.py").write_text(source)
    with started([sys.executable, "-m", "minipar", "run", "script.py"], cwd=tmp_path) as job:
        assert "here" in job.stdout.readline()
        job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=30)
    assert (job.returncode, err) == (130, "minipar: interrupted\n")


def test_a_script_finds_the_modules_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text("value = 42")
    done = minipar_run(tmp_path, "import beside; print(beside.value)", "-n", "2")
    assert who_said(done.stdout, 2) == {"42": {0, 1}}, done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-n", "0", "script.py"], "at least 1 rank"),
        (["--backend", "smoke", "script.py"], "there is no backend 'smoke'"),
        (["nothing.py"], "there is no script nothing.py"),
        (["--timeout", "0", "script.py"], "for more than 0 seconds, not 0.0"),
        (["--timeout", "nan", "script.py"], "for more than 0 seconds, not nan"),
        (["--log-dir", "script.py", "script.py"], "script.py is a file, and --log-dir names a fol"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path, options, says, command_line, monkeypatch):
    (tmp_path / "script.py").write_text("")
    monkeypatch.chdir(tmp_path)
    done = command_line("run", *options)
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.splitlines()) == 1


def test_first_barrier_is_reached_soon(tmp_path):
    """Promised: 0.6 s from the command to the first barrier of two ranks."""
    source = "import minipar, time; minipar.init().barrier(); print(time.time())"
    begun = time.time()
    done = minipar_run(tmp_path, source, "-n", "2")
    reached = max(float(line.split()[-1]) for line in done.stdout.splitlines())
    assert reached - begun < 5 * 0.6


@pytest.mark.slow
def test_output_is_passed_on_while_the_job_runs(tmp_path):
    """The script goes on only once the test has seen its lines, one after another."""
    source = """
import os, sys, time, minipar
world = minipar.init()
for i in range(3):
    if world.rank == 0:
        print("line", i, file=[sys.stdout, sys.stderr][i % 2])
    while not os.path.exists(f"seen-{i}"):
        time.sleep(0.005)
"""
    (tmp_path / "script.py").write_text(source)
    command = [sys.executable, "-m", "minipar", "run", "script.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        deadline = threading.Timer(60, job.kill)
        deadline.start()
        for i in range(3):
            assert [job.stdout, job.stderr][i % 2].readline() == f"[rank 0] line {i}\n"
            (tmp_path / f"seen-{i}").touch()
        assert job.wait() == 0
        deadline.cancel()


def test_a_rank_that_floods_its_output_holds_up_nobody(tmp_path):
    """More than a pipe holds, after a pause; and a rank that fails meanwhile."""
    source = """
import sys, time, minipar
world = minipar.init()
world.barrier()
if world.rank == 0:
    print("first", flush=True)
    time.sleep(0.3)
    for i in range(20_000):
        print(f"line {i} " + "." * 80)
"""
    done = minipar_run(tmp_path, source, "-n", "2")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 20_001


@pytest.mark.slow
def test_what_a_rank_has_started_ends_with_ctrl_c(tmp_path):
    source = """
import subprocess, minipar
world = minipar.init()
child = subprocess.Popen(["sleep", "600"])
open(f"pid-{world.rank}", "w").write(str(child.pid))
print("here", flush=True)
child.wait()
"""
    (tmp_path / "script.py").write_text(source)
    with started([sys.executable, "-m", "minipar", "run", "script.py"], cwd=tmp_path) as job:
        assert "here" in job.stdout.readline()
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=30)
    for path in tmp_path.glob("pid-*"):
        stat = Path(f"/proc/{path.read_text()}/stat")
        assert not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_letters_that_the_terminal_does_not_have(tmp_path):
    command = [sys.executable, "-m", "minipar", "run", "-n", "1", "script.py"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    child = "import sys; sys.stdout.reconfigure(encoding='utf-8')\n"
    (tmp_path / "script.py").write_text(child + "print('caf\\u00e9')")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.stdout == "[rank 0] caf\\xe9\n", done.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")
def test_a_script_in_virtual_time(tmp_path):
    (tmp_path / "cluster.toml").write_text("alpha_s = 1e-3\nbeta_s_per_byte = 0.0")
    source = "import minipar; g = minipar.init(); g.barrier(); print(g.now_ns())"
    done = minipar_run(tmp_path, source, "--backend", "local", "--cluster", "cluster.toml")
    assert who_said(done.stdout, 2) == {"1000000": {0, 1}}, done.stderr
    done = minipar_run(tmp_path, source, "--cluster", "cluster.toml")
    assert done.returncode == 2 and "virtual time exists on local only" in done.stderr
