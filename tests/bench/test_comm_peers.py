"""Contenders as processes: how they start, answer, sleep, and end."""

import importlib.util
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from minipar.bench import comm_peers
from minipar.bench.comm_peers import Contender, Missing, Unsupported


@pytest.fixture
def started():
    """Starts contenders, and ends them at the end."""
    alive = []

    def start(*arguments):
        alive.append(comm_peers.start(*arguments))
        return alive[-1]

    yield start
    for contender in alive:
        contender.close()


@pytest.mark.parametrize("name", ["process", "local"])
def test_ranks_of_minipar_answer_every_call(name, started, tmp_path):
    contender = started(name, 3, tmp_path)
    assert contender.version.startswith("minipar ")
    for op in ("all_reduce", "barrier", "send_recv", "add", "all_to_all", "broadcast"):
        assert 0 < contender.ask(op, None, 96, 2) < 10


def test_an_algorithm_that_cannot_be_is_refused_and_the_ranks_live_on(started, tmp_path):
    contender = started("process", 2, tmp_path)
    with pytest.raises(Unsupported, match="UsageError: all_reduce has no algorithm 'nil'"):
        contender.ask("all_reduce", "nil", 8, 1)
    assert contender.ask("all_reduce", "ring", 8, 1) > 0


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_ranks_that_are_not_asked_sleep(started, tmp_path):
    """Rank 0 adds for a good while; the others, of this and of another contender, do nothing."""
    contender, other = started("process", 2, tmp_path), started("local", 1, tmp_path)
    for each in (contender, other):
        each.ask("barrier", None, 0, 1)
    idle = contender.pids[1], other.pids[0]
    before = [cpu_seconds(pid) for pid in (contender.pids[0], *idle)]
    while cpu_seconds(contender.pids[0]) < before[0] + 0.4:
        contender.ask("add", None, 2**20, 1000)
    assert max(cpu_seconds(pid) - b for pid, b in zip(idle, before[1:])) < 0.1


def test_closing_ends_all_processes(started, tmp_path):
    contender = started("process", 2, tmp_path)
    contender.close()
    for pid in contender.pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_rank_that_is_killed_is_an_end_and_no_hang(started, tmp_path):
    contender = started("process", 2, tmp_path)
    os.kill(contender.pids[1], signal.SIGKILL)
    with pytest.raises(Missing, match=r"ended early: .*PeerLost"):
        contender.ask("barrier", None, 0, 1)


def test_a_contender_that_does_not_start_is_a_note_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    with pytest.raises(Missing, match="its ranks ended early: no such luck"):
        Contender("broken", 2, [command], tmp_path)


def test_the_first_python_that_has_the_module_is_taken(tmp_path):
    assert comm_peers.python_with("numpy", [sys.executable]) == sys.executable
    with pytest.raises(Missing, match=r"no_such_thing is not installed \(--peer-python PATH"):
        comm_peers.python_with("no_such_thing", [sys.executable])
    with pytest.raises(Missing, match="python cannot be run: No such file"):
        comm_peers.python_with("no_such_thing", [sys.executable, str(tmp_path / "python")])


def test_ranks_are_crowded_onto_cores_only_if_there_are_fewer(monkeypatch, tmp_path):
    mpirun = tmp_path / "mpirun"
    mpirun.write_text("#!/bin/sh\n")
    mpirun.chmod(0o755)
    monkeypatch.setattr(comm_peers, "usable_cores", lambda: 3)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    python = str(tmp_path / "python")
    assert comm_peers._mpirun(python, 3) == [str(mpirun), "-n", "3", "--allow-run-as-root"]
    assert comm_peers._mpirun(python, 4)[3:] == ["--allow-run-as-root", "--oversubscribe"]
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Missing, match="there is no mpirun"):
        comm_peers._mpirun("/nowhere/python", 2)


def test_ranks_of_the_mpi_backend_are_started_by_mpirun(monkeypatch, tmp_path):
    monkeypatch.setattr(comm_peers, "_mpirun", lambda python, ranks: ["mpirun", "-n", str(ranks)])
    monkeypatch.setattr(comm_peers, "Contender", lambda *arguments: arguments)
    name, ranks, (command,), folder = comm_peers.start("mpi", 3, tmp_path, memory="shared")
    assert (name, ranks, folder) == ("mpi", 3, tmp_path)
    assert command[:4] == ["mpirun", "-n", "3", sys.executable]
    assert command[-4:] == ["mpi", "SOCKET", "3", "shared"]


@pytest.mark.parametrize("name", ["gloo", "openmpi"])
def test_a_peer_that_is_here_answers(name, started, tmp_path):
    if importlib.util.find_spec(comm_peers.PEERS[name]) is None:
        pytest.skip(f"{comm_peers.PEERS[name]} is not installed")
    beside = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if name == "openmpi" and shutil.which("mpirun", path=beside) is None:
        pytest.skip("there is no mpirun")
    contender = started(name, 2, tmp_path)
    for op in ("all_reduce", "send_recv", "barrier"):
        assert 0 < contender.ask(op, None, 64, 2) < 10
