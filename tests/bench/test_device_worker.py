"""What a worker of the bench on a GPU answers, on the stand-in for CuPy."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

from minipar.bench import device_worker, workloads


@pytest.fixture
def gpu(cupy, monkeypatch):
    if not hasattr(cupy, "stand_in"):
        return
    pool = SimpleNamespace(free_all_blocks=lambda: None, total_bytes=lambda: 3 * 2**20)
    vars(cupy).update(get_default_memory_pool=lambda: pool, __version__="14")
    runtime = cupy.cuda.runtime
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda n: {"name": b"GPU"}, raising=False)
    monkeypatch.setattr(device_worker.cuda, "use_tf32", lambda on: None)
    monkeypatch.setattr(device_worker, "launches", lambda steps, batch: {"launches": None})


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_it_answers_what_it_is_asked(gpu, monkeypatch, capsys, precision):
    if precision == "bfloat16":
        pytest.importorskip("ml_dtypes")
    tiny = workloads._gpt(d=8, heads=2, batch=2, block=4, layers=1, vocab=16)
    monkeypatch.setattr(device_worker, "ON_DEVICE", {"tiny": tiny})
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"tiny {precision} 2\nhuge tf32 2\n"))
    device_worker.main(["minipar"])
    found, failed = map(json.loads, capsys.readouterr().out.splitlines())
    assert found["note"] is None and found["step_ms"] > 0
    assert found["first_loss"] == pytest.approx(2.77, abs=0.1)  # ln 16
    assert "huge" in failed["note"]
