"""The bench on a GPU: what it says of what its workers find. The workers need a GPU."""

import json

import pytest

from minipar.bench import device
from minipar.bench.workloads import ON_DEVICE
from minipar.cli import main
from minipar.models import GPT
from minipar.random import Init

MS = {"torch": {"bfloat16": 50.0, "tf32": 100.0}}
MS["minipar"] = {"bfloat16": 60.0, "tf32": 50.0}


class Worker:
    """What a worker answers; torch fails in bfloat16-pure."""

    def __init__(self, engine):
        self.engine = engine

    def kill(self):
        pass

    communicate = kill


def ask(worker, order):
    _, precision, _ = order.split()
    if precision == "bfloat16-pure":
        return {"note": "the error"}
    ms = MS[worker.engine][precision]
    return {
        "note": None, "step_ms": ms, "reserved_mb": 10 * ms, "first_loss": 5.0, "last_loss": 4.0,
        "device": "NVIDIA H100", "launches": 7, "busy_ms": 1.0,
    }  # fmt: skip


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.setattr(device, "missing_for_cuda", lambda compute: None)
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(device, "_start", Worker)
    monkeypatch.setattr(device, "_ask", ask)


def test_each_precision_is_compared_with_torch_in_it(workers):
    rows = {(r["engine"], r["precision"]): r for r in device.bench_device(["gpt-256"])}
    assert (
        rows["minipar", "bfloat16"]["ratio"] == rows["minipar", "bfloat16"]["memory_ratio"] == 1.2
    )
    assert rows["minipar", "tf32"]["ratio"] == 0.5
    assert rows["torch", "bfloat16-pure"]["note"] == "the error"
    tflops = device.flops(ON_DEVICE["gpt-256"]) / 0.05 / 1e12
    assert rows["minipar", "tf32"]["mfu"] == pytest.approx(tflops / 494.7)


def test_the_command_prints_a_table_and_saves_the_rows(workers, tmp_path, capsys):
    saved = tmp_path / "rows.json"
    with pytest.raises(SystemExit) as ended:
        main(["bench", "train", "--device", "cuda", "--model", "gpt-256", "--save", str(saved)])
    table = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1  # one has failed
    assert len(table) == 1 + len(json.loads(saved.read_text())) == 6
    assert "60.00" in table[4] and "1.20" in table[4]


def test_operations_are_counted_from_the_parameters():
    work = ON_DEVICE["gpt-256"]
    model = GPT(Init(), **work.sizes)
    n = sum(x.data.size for x in model.parameters())
    assert n == device.parameters(256, 128, 4, 256)
    tokens = 16 * 128
    assert device.flops(work) == tokens * (6 * n + 12 * 4 * 256 * 128)


def test_other_models_are_refused():
    with pytest.raises(device.UsageError, match="gpt-124m"):
        next(device.bench_device(["cnn"]))


@pytest.mark.gpu
def test_a_small_one_on_a_gpu():
    row, _ = device.bench_device(["gpt-256"], ("minipar",), steps=2)
    assert row["note"] is None and row["step_ms"] > 0
