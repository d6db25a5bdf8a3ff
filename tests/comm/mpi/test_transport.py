"""The mpi backend under a real mpirun: the transport's promises, and what its waits say."""

import re

import pytest

from minipar.comm.environment import THREAD_VARIABLES
from tests.comm.mpirun import SCRIPT, done, mpirun, ranks_do


@pytest.mark.parametrize("p", [pytest.param(p, marks=pytest.mark.slow) for p in (1, 3, 4)] + [2])
def test_it_keeps_every_promise_of_a_transport(p):
    job = ranks_do(p, "conformance")
    assert (job.returncode, job.stdout) == (0, "done\n"), job.stderr
    assert job.stderr == ""


@pytest.mark.slow
def test_arrays_of_a_gpu_travel_through_host_memory():
    job = ranks_do(2, "on_a_gpu")
    assert (job.returncode, job.stdout) == (0, "done\n"), job.stderr


def test_large_messages_may_travel_in_many_pieces():
    job = ranks_do(2, "in_pieces")
    assert (job.returncode, job.stdout) == (0, "done\n"), job.stderr


@pytest.mark.parametrize("p", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_collectives_go_on_beside_the_rank(p):
    job = ranks_do(p, "asynchronous")
    assert (job.returncode, job.stdout) == (0, "done\n"), job.stderr


@pytest.mark.slow
def test_a_small_send_returns_at_once_and_its_array_is_free(tmp_path):
    job = ranks_do(2, "changed_before_it_is_taken", str(tmp_path / "changed"))
    assert (job.returncode, job.stdout) == (0, "done\n"), job.stderr


@pytest.mark.slow
def test_what_was_sent_arrives_however_late_its_receiver_is():
    assert ranks_do(2, "slow_receiver").stdout == "done\n"


@pytest.mark.slow
def test_a_retry_after_a_timeout_gets_the_message():
    job = ranks_do(2, "retries", options=["--timeout", "0.5"])
    assert (job.returncode, job.stdout) == (0, "done\n"), job.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("deadlock", "rank 0 has waited 1 s for rank 1 in recv #0 .*; the last call of rank 1: "
         r"recv #0 \(from 2\) at tests/comm/ranks.py"),
        ("late", r"for rank 1 in barrier #0 .*; the last call of rank 1: unknown, since it does"),
    ],
)  # fmt: skip
def test_a_wait_ends_after_its_timeout_and_tells_what_the_other_does(how, says):
    job = ranks_do(3, "fail", how, options=["--timeout", "1"])
    assert job.returncode == 1
    assert re.search(says, job.stderr), job.stderr
    assert "That is the limit (timeout_s)" in job.stderr


def test_plain_python_under_mpirun_is_a_job_of_all_ranks(monkeypatch):
    for name in THREAD_VARIABLES:  # whoever sets one has decided, and is told nothing
        monkeypatch.delenv(name, raising=False)
    job = done(mpirun(3, SCRIPT, "all_ranks"))
    assert (job.returncode, job.stdout) == (0, "done\n"), job.stderr
    assert job.stderr.count("NumPy was imported before the number of its threads") == 1
