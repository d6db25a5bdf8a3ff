"""NCCL itself, with several ranks on one GPU: each says that it is a host of its own.

Slow, since the kernels of the ranks take turns: 5 ms for what takes 10 µs. It is about what NCCL
does, and what happens if a rank is lost.
"""

import re
import subprocess
import sys
import time

import numpy as np
import pytest

import minipar
from minipar.errors import CallMismatch, CommTimeout, PeerLost, UsageError
from minipar.testing.transports import PROMISES, every_collective_works
from tests.comm import gpu_ranks, ranks

pytestmark = [pytest.mark.gpu, pytest.mark.nccl]
ENDED_IN_S = 15.0  # the start of the processes, and 2 s; sharing a GPU with other tests
MESSAGES = tuple(promise for promise in PROMISES if promise is not every_collective_works)


def run(fn, p, *args, timeout_s=20.0):
    return minipar.run(fn, p, args=args, backend="nccl", timeout_s=timeout_s, share_gpu=True)


@pytest.mark.parametrize(("p", "reductions"), [(1, 318), (2, 106), (4, 32)])
def test_messages_collectives_dtypes_handles_and_groups(p, reductions):
    assert run(all_of_it, p) == [reductions] * p


def all_of_it(group):
    """In one job, since a start takes seconds, and with 4 ranks every call 20 ms; how many
    reductions were compared with NumPy's.
    """
    p, few = group.size, {"sizes": (0, 7), "algorithms": (None,)}
    dtypes = gpu_ranks.DTYPES if p < 4 else ("bool", "float32", "bfloat16", "int64")
    gpu_ranks.conformance(group, MESSAGES if p < 4 else MESSAGES[:6])
    gpu_ranks.nan_spreads(group)
    gpu_ranks.asynchronous(group)
    gpu_ranks.received_into(group)
    gpu_ranks.groups(group)
    gpu_ranks.moved(group, dtypes, **few)
    if p == 2:
        gpu_ranks.crossing(group)
        gpu_ranks.conformance(group, (every_collective_works,))
    assert gpu_ranks.by_nccl_and_by_hand(group) == 10_006 * p * (p + 1) // 2
    if p == 1:
        few["algorithms"] = (None, "ring", "tree")
    return gpu_ranks.reduced(group, dtypes, **few)


def test_arrays_of_host_memory_go_as_ever():
    assert all(run(ranks.conformance, 2))


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        (
            "kill",
            PeerLost,
            r"rank 1 was killed by signal 9 \(SIGKILL\); its last call was \w+ #0",
        ),
        ("kill after the agreement", PeerLost, "rank 1 was killed by signal 9"),
        ("raise", ValueError, "rank 1 has had enough"),
        ("return", PeerLost, "for a rank that has returned .*rank 1: "),
        ("shape", CallMismatch, r"float32\[3\] on cuda"),
    ],
)
def test_a_failing_rank_ends_the_job_soon_and_is_named(how, error, says, capfd):
    begun = time.monotonic()
    with pytest.raises(error, match=says):
        run(gpu_ranks.fail, 3, how)
    assert time.monotonic() - begun < ENDED_IN_S
    if how == "kill":
        lines = capfd.readouterr().err.splitlines()
        named = [re.match(r"\[rank (\d)\]", line) for line in lines if "rank 1 was killed" in line]
        assert {match[1] for match in named if match} == {"0", "2"}


def test_a_rank_that_does_not_come_ends_the_job_after_the_timeout():
    begun = time.monotonic()
    with pytest.raises(CommTimeout, match=r"rank [02] has waited .* in all_reduce #1"):
        run(gpu_ranks.fail, 3, "late", timeout_s=6.0)
    assert time.monotonic() - begun < ENDED_IN_S + 6.0


def test_nothing_compared_a_call_that_hangs_on_the_gpu_ends_after_the_timeout(tmp_path):
    script = tmp_path / "alone.py"
    script.write_text(
        "import minipar\nfrom tests.comm import gpu_ranks\ngpu_ranks.alone(minipar.init())\n"
    )
    options = ["-n", "2", "--backend", "nccl", "--share-gpu", "--no-check", "--timeout", "6"]
    begun = time.monotonic()
    command = [sys.executable, "-m", "minipar", "run", *options, str(script)]
    job = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert time.monotonic() - begun < ENDED_IN_S + 6.0 + 5.0
    assert job.returncode == 1
    assert "for any rank in all_reduce #1" in job.stderr and "timeout_s" in job.stderr, job.stderr


def test_ranks_that_share_a_gpu_without_nccl():
    """The process backend, through pinned memory."""
    assert all(minipar.run(gpu_ranks.conformance, 3, backend="process"))
    assert minipar.run(gpu_ranks.reduced, 2, backend="process") == [636, 636]
    assert all(minipar.run(gpu_ranks.asynchronous, 3, backend="process"))


def test_ranks_that_are_threads():
    assert all(minipar.run(gpu_ranks.conformance, 3))
    assert all(minipar.run(gpu_ranks.asynchronous, 3))


def test_without_share_gpu_too_many_ranks_are_refused():
    import cupy

    gpus = cupy.cuda.runtime.getDeviceCount()
    with pytest.raises(UsageError, match=f"{gpus + 1} ranks, but this host has {gpus} GPU"):
        minipar.run(np.ones, gpus + 1, backend="nccl")
