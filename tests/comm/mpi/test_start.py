"""Becoming a rank of MPI's job: what is asked first, and what replaces the process."""

import sys

import pytest

from minipar.comm.mpi import start
from minipar.errors import UsageError

TWO_OF_EIGHT = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1000",
}


def become(monkeypatch, ranks, environ, arguments=(), found=True):
    """What os.execve would be called with."""
    calls = []
    monkeypatch.setattr(start.os, "execve", lambda *call: calls.append(call))
    monkeypatch.setattr(start, "find_spec", lambda name: found or None)
    start.become_rank("train.py", arguments, ranks, 7.5, True, environ)
    return calls[0]


@pytest.mark.parametrize("ranks", [None, 8])
def test_the_process_is_replaced_with_its_threads_set(monkeypatch, ranks):
    path, command, env = become(monkeypatch, ranks, TWO_OF_EIGHT, ["--lr", "1"])
    assert path == command[0] == sys.executable
    assert command[-5:] == ["7.5", "1", "train.py", "--lr", "1"]
    assert env["OPENBLAS_NUM_THREADS"] == "1"  # a thousand ranks are on this host
    assert env["OMPI_COMM_WORLD_RANK"] == "2"


def test_what_the_user_has_set_stays(monkeypatch):
    *_, env = become(monkeypatch, None, TWO_OF_EIGHT | {"OPENBLAS_NUM_THREADS": "3"})
    assert env["OPENBLAS_NUM_THREADS"] == "3"


def test_a_number_that_contradicts_mpirun_is_refused(monkeypatch):
    with pytest.raises(UsageError, match="-n 4, but mpirun has started 8 ranks"):
        become(monkeypatch, 4, TWO_OF_EIGHT)


@pytest.mark.parametrize(("ranks", "n"), [(None, 2), (3, 3)])
def test_without_mpirun_the_command_is_told(monkeypatch, ranks, n):
    with pytest.raises(UsageError, match=f"mpirun -n {n} minipar run train.py"):
        become(monkeypatch, ranks, {})


def test_where_srun_does_not_tell_the_number_mpi_will(monkeypatch):
    assert "train.py" in become(monkeypatch, None, {"PMIX_RANK": "3"})[1]


def test_one_rank_needs_no_mpirun(monkeypatch):
    assert "train.py" in become(monkeypatch, 1, {})[1]


def test_without_mpi4py_it_is_told_how_to_get_it(monkeypatch):
    with pytest.raises(UsageError, match="pip install mpi4py"):
        become(monkeypatch, None, TWO_OF_EIGHT, found=False)
