"""Which device a rank gets, and what is said where there is none."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from minipar import doctor
from minipar.device import missing_for_cuda, modules_of
from minipar.errors import UsageError
from minipar.training_job import prepare


def with_cupy(monkeypatch, gpus=1, **functions):
    """A CuPy that has so many GPUs, or raises what it is given instead."""

    def count():
        if isinstance(gpus, Exception):
            raise gpus
        return gpus

    cupy = ModuleType("cupy")
    used = []
    runtime = SimpleNamespace(
        getDeviceCount=count,
        runtimeGetVersion=lambda: 13010,
        getDeviceProperties=lambda n: {"name": b"A GPU"},
    )
    device = lambda n: SimpleNamespace(use=lambda: used.append(n))  # noqa: E731
    cupy.cuda = SimpleNamespace(runtime=runtime, Device=device)
    cupy.ndarray, cupy.__version__, cupy.used = type(None), "14.2.0", used
    vars(cupy).update({"ones": np.ones, **functions})
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


def test_the_cpu_needs_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert modules_of("cpu", 3) is np


def test_ranks_take_the_gpus_in_turn_and_one_says_so(monkeypatch, capsys):
    cupy = with_cupy(monkeypatch, gpus=2)
    assert all(modules_of("cuda", rank) is cupy for rank in range(5))
    assert cupy.used == [0, 1, 0, 1, 0]
    assert capsys.readouterr().err == (
        "minipar: more ranks than GPUs (2): from rank 2 on they share them.\n"
    )


def failing(message):
    def fail(*_):
        raise RuntimeError(message)

    return fail


@pytest.mark.parametrize(
    ("gpus", "functions", "what", "advice"),
    [
        (
            RuntimeError("cudaErrorInsufficientDriver: too old"),
            {},
            "no NVIDIA driver",
            "Install the driver",
        ),
        (RuntimeError("cudaErrorNoDevice: no"), {}, "no NVIDIA GPU", "nvidia-smi lists"),
        (0, {}, "no NVIDIA GPU", "CUDA_VISIBLE_DEVICES"),
        (1, {"ones": failing("no libnvrtc.so.13\nmore")}, "(no libnvrtc.so.13)", "[ctk]"),
    ],
)
def test_what_is_missing_is_said_with_how_to_get_it(monkeypatch, gpus, functions, what, advice):
    with_cupy(monkeypatch, gpus, **functions)
    missing = missing_for_cuda()
    assert what in missing.what and advice in missing.advice
    with pytest.raises(UsageError, match="--device cuda: "):
        modules_of("cuda")
    found = doctor._gpu()[0]
    assert not found.ok and found.found == missing.what and missing.advice in found.advice


@pytest.mark.parametrize("name", ["cupy", "numpy.something"])
def test_a_missing_package_is_named(monkeypatch, name):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)

    class Finder:
        def find_spec(self, module, *_):
            if module == "cupy":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    found = str(missing_for_cuda())
    assert found.startswith("CuPy is not installed" if name == "cupy" else f"CuPy needs {name}")
    assert "pip install 'minipar[cuda]'" in found


def test_training_is_refused_before_a_rank_starts(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(UsageError, match="--device cuda: CuPy"):
        prepare({"device": "cuda"}, out=str(tmp_path / "run"), resume=None)
    with pytest.raises(UsageError, match="--backend nccl: CuPy"):
        prepare({"backend": "nccl"}, out=str(tmp_path / "run"), resume=None)
    assert not (tmp_path / "run").exists()


def test_the_doctor_counts_gpus(monkeypatch):
    with_cupy(monkeypatch, gpus=2)
    found = doctor._gpu()[0]
    assert found.ok and found.found == "CuPy 14.2.0, CUDA 13.1, 2 × A GPU"
