"""Jobs in places that lack something: a sentence where they cannot run, else no difference."""

import errno
import gc
import os
import shlex
import subprocess
import sys

import pytest

import minipar
from minipar.comm import child
from minipar.errors import CommError
from tests.comm import ranks

SCRIPT = """
import minipar, numpy as np
world = minipar.init()
print("sum", world.all_reduce(np.ones(3)))
"""
RUN = f"{shlex.quote(sys.executable)} -m minipar run -n {{}} script.py"
FULL = "what the ranks print cannot be written: No space left on device; the job was ended."
TRAIN = f"{shlex.quote(sys.executable)} -m minipar train mlp --dp 2 --steps 12 --batch 4 --block 16"


def shell(tmp_path, line, **env):
    """The shell's answer to the line, in a folder with a script."""
    (tmp_path / "script.py").write_text(SCRIPT)
    return subprocess.run(
        ["sh", "-c", line],
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def inside(mount, line):
    """The line, in a mount namespace of its own where `mount` has been done; or a skip."""
    wrapped = ["unshare", "-m", "sh", "-c", f"{mount} && {{ {line}; }}"]
    tried = subprocess.run([*wrapped[:-1], mount], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"cannot mount here: {tried.stderr.strip()}")
    return shlex.join(wrapped)


def test_64_mb_of_shared_memory(tmp_path):
    """What docker gives. Four ranks; and more than that in messages."""
    line = inside("mount -t tmpfs -o size=64m tmpfs /dev/shm", RUN.format(4))
    assert shell(tmp_path, line).stdout == "[all 4] sum [4. 4. 4.]\n"


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path, closed):
    """The job's own descriptors once took the numbers of stdout and stderr, and were lost."""
    done = shell(tmp_path, f"{RUN.format(2)} {closed}")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == ("" if " >&-" in f" {closed}" else "[all 2] sum [2. 2. 2.]\n")


@pytest.mark.parametrize("options", ["-n 2", "-n 2 --backend local"])
def test_a_full_disk(tmp_path, options):
    done = shell(tmp_path, f"{RUN.format(2).replace('-n 2', options)} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(FULL)


@pytest.mark.slow
def test_a_full_disk_ends_what_runs(tmp_path):
    line = RUN.format(2) + " >/dev/full"
    script = "import time; print('here', flush=True); time.sleep(600)"
    done = shell(tmp_path, f"echo {shlex.quote(script)} > script.py; {line}")
    assert done.stderr == f"minipar: {FULL}\n"


def test_a_reader_that_has_gone(tmp_path):
    done = shell(tmp_path, f"{RUN.format(2)} | true; wait")
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [8, 12, 20])
def test_few_open_files(tmp_path, limit):
    done = shell(tmp_path, f"ulimit -n {limit}; {RUN.format(8)}")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert "cannot be started: Too many open files. Start fewer ranks, or raise the" in line


def test_no_more_processes(monkeypatch):
    """As `ulimit -u` does it, which does not bind root."""
    gc.collect()  # what earlier tests have left would be closed during this one
    started, before = [], len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0

    def popen(*args, **options):
        if len(started) == 2:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        started.append(real(*args, **options))
        return started[-1]

    real = subprocess.Popen
    monkeypatch.setattr(child.subprocess, "Popen", popen)
    with pytest.raises(CommError, match=r"process of rank 2 cannot be started: Resource .* \(`uli"):
        minipar.run(ranks.environment, 3, args=("HOME",), backend="process")
    assert all(process.poll() is not None for process in started)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.slow
def test_a_home_that_cannot_be_written(tmp_path):
    """matplotlib remarked on it, twice, in the middle of what training prints."""
    home = tmp_path / "home"
    home.mkdir()
    line = f"HOME={home} {TRAIN} --out run --eval-every 0"
    mount = f"mount -t tmpfs -o ro tmpfs {home}"
    done = shell(tmp_path, inside(mount, line), MPLCONFIGDIR="")
    assert done.returncode == 0 and "the same as one rank" in done.stdout
    begins = ("memory ", "each rank ", "step ")  # and nothing else
    assert all(line.startswith(begins) for line in done.stderr.splitlines()), done.stderr
    assert (tmp_path / "run/loss.png").exists()


@pytest.mark.slow
def test_a_current_folder_that_is_gone(tmp_path):
    """Call sites are told relative to it, and every call failed."""
    (tmp_path / "gone").mkdir()
    line = RUN.format(2).replace("script.py", f"{tmp_path}/script.py")
    done = shell(tmp_path, f"cd gone; rmdir ../gone; {line}")
    assert done.stdout == "[all 2] sum [2. 2. 2.]\n", done.stderr


@pytest.mark.slow
def test_a_current_folder_that_cannot_be_written(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    mount = f"mount -t tmpfs -o ro tmpfs {place}"
    done = shell(tmp_path, inside(mount, f"cd {place}; {TRAIN}"))
    assert (done.returncode, done.stderr) == (
        2,
        "minipar: no run folder can be made here: Read-only file system: 'runs'; choose one with "
        "--out.\n",
    )
    done = shell(
        tmp_path, inside(mount, f"cd {place}; {RUN.format(2).replace('script', '../script')}")
    )
    assert done.stdout == "[all 2] sum [2. 2. 2.]\n"
