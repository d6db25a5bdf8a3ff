"""Nothing is left of a job, however it ends: no process, file, descriptor, thread, memory."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

import minipar
from minipar.errors import PeerLost
from tests.comm import ranks
from tests.jobs import eventually, started

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
ENDED_IN_S = 30.0


class Marked:
    """Commands whose processes, and all that these start, can be told by their environment."""

    def __init__(self, tmp_path):
        self.mark = f"MINIPAR_TEST_MARK={uuid.uuid4()}"
        self.temporary = tmp_path / "temporary"
        self.temporary.mkdir()
        name, _, value = self.mark.partition("=")
        self.env = {**os.environ, name: value, "TMPDIR": str(self.temporary)}
        self.shared = shared_memory()

    def command(self, fn, p, *args):
        code = (
            "import minipar; from tests.comm import ranks; "
            f"minipar.run(ranks.{fn}, {p}, args={args!r}, backend='process')"
        )
        return [sys.executable, "-c", code]

    def processes(self):
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
            except OSError:  # it has just ended, or is not ours
                continue
        return found

    def assert_nothing_is_left(self):
        eventually(lambda: not self.processes())
        assert list(self.temporary.iterdir()) == []
        assert shared_memory() == self.shared


def shared_memory():
    """What minipar has named in the memory that has names: it has no names for any."""
    return list(Path("/dev/shm").glob("*minipar*"))


@pytest.fixture
def marked(tmp_path):
    return Marked(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_when_the_launcher_is_ended(number, marked, tmp_path):
    with started(marked.command("busy", 2, str(tmp_path)), env=marked.env) as job:
        eventually(lambda: all((tmp_path / str(rank)).exists() for rank in range(2)))
        assert len(marked.processes()) == 3
        job.send_signal(getattr(signal, number))
        job.communicate(timeout=ENDED_IN_S)
    marked.assert_nothing_is_left()


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_what_ranks_have_started_ends_with_the_launcher(number, marked, tmp_path):
    """SIGTERM once ended the launcher at once, and what the ranks had started was left behind."""
    with started(marked.command("starts_processes", 2, str(tmp_path)), env=marked.env) as job:
        eventually(lambda: all((tmp_path / str(rank)).exists() for rank in range(2)))
        assert len(marked.processes()) == 5
        job.send_signal(getattr(signal, number))
        job.communicate(timeout=ENDED_IN_S)
    assert job.returncode == -getattr(signal, number)
    marked.assert_nothing_is_left()


def test_sigterm_ends_a_job_in_the_background_of_a_shell(marked, tmp_path):
    """There SIGINT is ignored, which SIGTERM stands on."""
    command = marked.command("starts_processes", 2, str(tmp_path))
    in_background = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    with started(in_background, env=marked.env) as job:
        eventually(lambda: all((tmp_path / str(rank)).exists() for rank in range(2)))
        job.terminate()
        job.communicate(timeout=ENDED_IN_S)
    marked.assert_nothing_is_left()


@pytest.mark.parametrize("how", ["raise", "kill", "_exit", "exit", "return", "shape"])
def test_when_a_rank_fails(how, marked):
    done = subprocess.run(marked.command("fail", 2, how), env=marked.env, capture_output=True)
    assert done.returncode != 0
    marked.assert_nothing_is_left()


def test_when_all_goes_well(marked):
    done = subprocess.run(marked.command("latin", 2), env=marked.env, capture_output=True)
    assert done.returncode == 0
    marked.assert_nothing_is_left()


@pytest.mark.slow
def test_four_jobs_at_once(marked):
    command = marked.command("several", 2)
    jobs = [subprocess.Popen(command, env=marked.env) for _ in range(4)]
    assert [job.wait(timeout=120) for job in jobs] == [0] * 4
    marked.assert_nothing_is_left()


def what_this_process_holds():
    """Descriptors, threads, children, and how many segments are mapped."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return (
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        children.read_text() if children.exists() else "",
        Path("/proc/self/maps").read_text().count("memfd:minipar"),
    )


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def one_of_each():
    assert minipar.run(ranks.environment, 2, args=("HOME",), backend="process")
    with pytest.raises(ValueError):
        minipar.run(ranks.fail, 2, args=("raise",), backend="process")
    with pytest.raises(PeerLost):
        minipar.run(ranks.fail, 2, args=("_exit",), backend="process")


@pytest.mark.slow
def test_a_process_that_runs_jobs_holds_nothing_of_them_afterwards():
    segments = what_this_process_holds()[-1]  # of tests before, which map some themselves
    one_of_each()
    before = what_this_process_holds()
    one_of_each()
    assert before[-1] == segments
    assert what_this_process_holds() == before


@pytest.mark.slow
def test_fifty_jobs_one_after_another():
    one_of_each()
    before, memory = what_this_process_holds(), resident_bytes()
    for _ in range(50):
        assert minipar.run(ranks.environment, 2, args=("HOME",), backend="process")
    assert what_this_process_holds() == before
    assert resident_bytes() - memory < 8 * 2**20  # of 50 segments with 2 MB each
