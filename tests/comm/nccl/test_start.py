"""What is looked at before ranks of nccl start, and the environment that they get."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

import minipar
from minipar.comm.nccl import start
from minipar.comm.script import run_script
from minipar.errors import UsageError
from tests.strict_cupy import cuda


@pytest.fixture
def gpus(cupy, monkeypatch):
    """Sets how many there are."""
    monkeypatch.setattr(start, "find_spec", lambda name: name)
    module = ModuleType("cupy.cuda")
    module.nccl = SimpleNamespace(available=True)
    monkeypatch.setitem(sys.modules, "cupy.cuda", module)
    return lambda n: monkeypatch.setattr(cuda.devices, "count", n)


@pytest.mark.parametrize(
    ("there", "ranks", "share", "says"),
    [
        (0, 1, True, "CUDA finds none .* --backend process runs the same script without one"),
        (1, 2, False, "one rank per GPU: 2 ranks, but this host has 1 GPU. .* --share-gpu"),
        (2, 4, False, "4 ranks, but this host has 2 GPUs"),
    ],
)
def test_too_few_gpus_are_one_sentence(gpus, there, ranks, share, says):
    gpus(there)
    with pytest.raises(UsageError, match=says):
        minipar.run(print, ranks, backend="nccl", share_gpu=share)


def test_what_can_start_is_not_refused(gpus):
    for there, ranks, share in ((1, 1, False), (1, 4, True), (8, 8, False)):
        gpus(there)
        start.check(ranks, share)


def test_without_cupy_it_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(start, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install cupy-cuda13x nvidia-nccl-cu13"):
        start.check(1, False)


def test_sharing_is_for_nccl(tmp_path):
    with pytest.raises(UsageError, match="share_gpu is for backend 'nccl'"):
        minipar.run(print, 2, backend="process", share_gpu=True)
    script = tmp_path / "script.py"
    script.touch()
    with pytest.raises(UsageError, match="share_gpu is for backend 'nccl'"):
        run_script(str(script), [], 2, share_gpu=True)


def test_lost_ranks_are_not_reported(gpus):
    gpus(2)
    with pytest.raises(UsageError, match="on_lost='report' is not for nccl"):
        minipar.run(print, 2, backend="nccl", on_lost="report")


def test_ranks_that_share_a_gpu_say_that_they_are_hosts():
    envs = [{"NCCL_PROTO": "LL"}, {}]
    for rank, env in enumerate(envs):
        start.set_environment(start.Options(share_gpu=True), "77", rank, env)
    assert [env["NCCL_HOSTID"] for env in envs] == ["minipar-77-0", "minipar-77-1"]
    assert envs[1]["NCCL_NET"] == "Socket" and envs[1]["NCCL_SOCKET_IFNAME"] == "=lo"
    assert envs[0]["NCCL_PROTO"] == "LL" and envs[1]["NCCL_PROTO"] == "Simple"  # the user's stays
    alone = {}
    start.set_environment(start.Options(), "77", 0, alone)
    assert "NCCL_HOSTID" not in alone and "NCCL_NET" not in alone
    assert alone["NCCL_LAUNCH_ORDER_IMPLICIT"] == "1" and alone["NCCL_RUNTIME_CONNECT"] == "0"
