"""Stopped ranks: named soon; a short stop, a debugger, and a stopped launcher do no harm."""

import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest

import minipar
from minipar.comm import stopped
from minipar.comm.stopped import EVERY_S, LOOKS, StoppedWatch, state
from minipar.errors import PeerLost
from tests.comm import ranks
from tests.jobs import alive, eventually, launched, pids

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
ENDED_IN_S = 5 * 2.0  # promised: 2 s


@pytest.fixture
def job(monkeypatch):
    """A watch on two processes whose states, and a clock that the test moves."""

    class Job:
        now, states = 100.0, {11: "S", 12: "S"}

        def monotonic(self):
            return self.now

        def looks(self, n):
            found = None
            for _ in range(n):
                self.now += EVERY_S
                found = found or self.watch.look({0: 11, 1: 12})
            return found

    job = Job()
    monkeypatch.setattr(stopped, "time", job)
    monkeypatch.setattr(stopped, "state", lambda pid: job.states[pid])
    job.watch = StoppedWatch()
    return job


def test_it_takes_a_while_on_end(job):
    job.states[12] = "T"
    assert job.looks(LOOKS - 1) is None
    job.states[12] = "R"
    assert job.looks(1) is None
    job.states[12] = "T"
    assert job.looks(LOOKS - 1) is None
    assert job.looks(1) == 1


def test_looks_that_come_too_soon_do_not_count(job):
    job.states[11] = "T"
    assert all(job.watch.look({0: 11}) is None for _ in range(10 * LOOKS))  # the clock stands still


def test_a_launcher_that_was_stopped_itself_gives_its_ranks_time_to_go_on(job):
    job.states[12] = "T"
    job.looks(1)
    job.now += 1000.0
    assert job.looks(LOOKS - 2) is None


def test_a_process_that_a_debugger_holds_is_not_stopped(job):
    job.states[11] = "t"
    assert job.looks(10 * LOOKS) is None


def test_the_states_of_real_processes():
    with subprocess.Popen(["sleep", "60"]) as process:
        eventually(lambda: state(process.pid) == "S")
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: state(process.pid) == "T")
        process.kill()
    assert state(process.pid) == ""


def test_a_debugger_shows_as_another_state():
    attach, detach = 16, 17
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            if libc.ptrace(attach, process.pid, None, None):
                pytest.skip(f"ptrace is not allowed: {os.strerror(ctypes.get_errno())}")
            eventually(lambda: state(process.pid) == "t")
            libc.ptrace(detach, process.pid, None, None)
        finally:
            process.kill()


def test_a_stopped_rank_is_named_and_the_job_ends(capfd):
    begun = time.monotonic()
    with pytest.raises(PeerLost) as caught:
        minipar.run(ranks.stops_itself, 3, backend="process")
    assert time.monotonic() - begun < ENDED_IN_S
    says = str(caught.value)
    assert says.startswith("rank 1 is stopped (SIGSTOP")
    assert "its last call was all_reduce #1" in says and "ranks.py:" in says
    err = capfd.readouterr().err.splitlines()  # the others say where they were
    assert sorted(line[:8] for line in err) == ["[rank 0]", "[rank 2]"]
    assert all("rank 1 is stopped" in line and "all_reduce #2 " in line for line in err)


@pytest.mark.slow
def test_a_rank_that_is_stopped_for_a_moment_goes_on(tmp_path):
    with launched("prints_when_told", 2, tmp_path) as job:
        rank = pids(tmp_path, 2)[1]
        for _ in range(5):  # in sum longer than LOOKS, with time for a look between
            os.kill(rank, signal.SIGSTOP)
            eventually(lambda: state(rank) == "T")
            time.sleep(1.5 * EVERY_S)
            os.kill(rank, signal.SIGCONT)
            time.sleep(3 * EVERY_S)
        (tmp_path / "go").touch()
        _, err = job.communicate(timeout=30)
    assert (job.returncode, err) == (0, "")


@pytest.mark.slow
def test_ctrl_z_and_fg(tmp_path):
    """The launcher stops, its ranks go on until their output fills a pipe; fg takes it up again."""
    with launched("prints_when_told", 2, tmp_path) as job:
        children = pids(tmp_path, 2)
        job.send_signal(signal.SIGSTOP)  # what a shell's Ctrl-Z comes to
        eventually(lambda: state(job.pid) == "T")
        (tmp_path / "go").touch()
        eventually(lambda: (tmp_path / "printing-0").exists())
        time.sleep(1.0)
        assert all(map(alive, children))
        job.send_signal(signal.SIGCONT)
        out, err = job.communicate(timeout=30)
    assert (job.returncode, err) == (0, "")
    assert out.count("\n") == 2 * 3000
