"""`minipar train` under mpirun."""

import json

import pytest

from minipar import training_mpi
from minipar.errors import UsageError
from minipar.training_job import prepare
from tests.comm.mpirun import done, mpirun
from tests.test_training_job import TINY

TWO = {"PMI_RANK": "0", "PMI_SIZE": "2"}


@pytest.mark.parametrize(
    ("environ", "given", "answer"),
    [
        ({}, {}, False),
        ({}, {"backend": "mpi"}, True),
        (TWO, {}, True),
        (TWO, {"backend": "local"}, False),
        (TWO | {"PMI_SIZE": "1"}, {}, False),
    ],
)
def test_when_it_is_wanted(environ, given, answer, monkeypatch):
    monkeypatch.setattr(training_mpi.os, "environ", environ)
    assert training_mpi.wanted(given) == answer


def test_without_mpirun_there_are_no_ranks(monkeypatch):
    monkeypatch.setattr(training_mpi.os, "environ", {})
    with pytest.raises(UsageError, match="mpirun -n 6 minipar train"):
        training_mpi.execute({"dp": 3, "pp": 2, "backend": "mpi"}, None, None)
    with pytest.raises(UsageError, match="mpirun -n 4 minipar train"):
        training_mpi.execute({"ps": "async", "workers": 3}, None, None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"dp": 3}, "--dp 3 is 3 ranks, but 4 are started"),
        ({"pp": 3}, "--dp 1 of 3 ranks each is 3 ranks, but 4 are started"),
        ({"ps": "sync", "workers": 2}, "2 workers and 1 servers is 3 ranks, but 4 are"),
    ],
)
def test_ranks_that_are_there_are_all_used(given, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        prepare(given, out=str(tmp_path / "run"), resume=None, ranks=4)
    job = prepare({"pp": 2, "batch": 32}, out=str(tmp_path / "run"), resume=None, ranks=4)
    assert (job.config.dp, job.config.pp) == (2, 2)
    given = {"ps": "async", "servers": 2}
    job = prepare(given, out=str(tmp_path / "served"), resume=None, ranks=4)
    assert (job.config.workers, job.config.ranks) == (2, 4)


def train(folder, *options):
    return done(mpirun(2, "-m", "minipar", "train", *options), cwd=folder)


@pytest.mark.slow
def test_a_run_and_its_resumption(tmp_path):
    first = train(tmp_path, "gpt", "--json", *TINY)
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    assert (summary["backend"], summary["ranks"], summary["steps"]) == ("mpi", 2, 30)
    assert 0 <= summary["max_difference_to_one_rank"] < 1e-4
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["gpt-1"]
    again = train(tmp_path, "--resume", "runs/gpt-1", "--steps", "40")
    assert again.returncode == 0 and "the same as one rank" in again.stdout, again.stderr
    assert "NumPy was imported" not in first.stderr  # the process has started anew


@pytest.mark.slow
def test_a_wrong_question_is_answered_once(tmp_path):
    job = train(tmp_path, "gpt", "--batch", "3")
    assert job.returncode == 2
    assert job.stderr.count("minipar: a batch of 3 cannot be divided among 2 ranks") == 1
    assert "Traceback" not in job.stderr and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_servers_go_on_without_a_worker_that_has_raised(tmp_path):
    options = ["--ps", "async", "--workers", "2", "--kill-worker", "1@step3", "--json", *TINY]
    job = done(mpirun(3, "-m", "minipar", "train", "mlp", *options), cwd=tmp_path)
    assert job.returncode == 0, job.stderr
    assert json.loads(job.stdout)["servers"][0]["lost_workers"] == [1]
    assert "rank 1 was to die after step 3; the others go on" in job.stderr
