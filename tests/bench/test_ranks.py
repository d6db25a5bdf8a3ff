import importlib.util

import pytest

from minipar.bench import comm_peers, ranks
from minipar.errors import UsageError


def test_rows_have_times_and_the_share_of_communication(monkeypatch):
    def without_torch(module, pythons):
        raise comm_peers.Missing(f"{module} is not installed")

    monkeypatch.setattr(ranks, "python_with", without_torch)
    mine, torch = ranks.bench_ranks("shallow", ["bucketed"], rounds=1, order={"steps": 2})
    assert (mine["engine"], mine["strategy"], mine["ranks"]) == ("minipar", "bucketed", 2)
    assert 0 < mine["step_ms"] < 60_000 and 0 < mine["comm_share"] < 1 and mine["peak_mb"] > 10
    assert mine["ratio"] is None and mine["note"] is None
    assert torch["step_ms"] is None and torch["note"] == "torch is not installed"
    assert ranks.line(torch).split(maxsplit=4)[:4] == ["torch", "shallow", "ddp", "2"]
    assert 0 <= mine["wait_share"] <= mine["comm_share"] and mine["epoch_s"] is None
    head = "engine model strategy ranks ms/step s/epoch × torch × alone × simul. comm waits MB"
    assert ranks.HEAD.split() == head.split()
    assert len(ranks.line(mine)) == len(ranks.HEAD)


def test_an_epoch_has_every_row_once_also_the_last_few():
    mine, alone = ranks.bench_ranks("shallow", against=["products"], rounds=1, order={"rows": 300})
    for row in (mine, alone):  # 64, 64 and 22 rows on each rank
        assert row["step_ms"] * 3 == pytest.approx(row["epoch_s"] * 1e3) and row["epoch_s"] > 0
        assert row["comm_share"] is None and row["ratio"] is None
    assert (alone["engine"], alone["strategy"]) == ("numpy", "products")


@pytest.mark.slow
def test_torch_shards_too():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    rows = ranks.bench_ranks(
        "shallow", ["zero1"], ["torch", "torch-zero1", "torch-fsdp"], rounds=1, order={"steps": 2}
    )
    assert [row["strategy"] for row in rows] == ["zero1", "ddp", "zero1", "fsdp"]
    assert all(row["ratio"] > 0 for row in rows)


@pytest.mark.slow
def test_torch_is_measured_in_the_same_way():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    mine, torch = ranks.bench_ranks("shallow", ["overlapped"], rounds=1, order={"steps": 2})
    assert torch["step_ms"] > 0 and torch["comm_share"] is None and torch["ratio"] == 1
    assert mine["ratio"] == mine["step_ms"] / torch["step_ms"]


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(UsageError, match="dp, bucketed, overlapped"):
        ranks.bench_ranks("mlp", ["zero9"])
    with pytest.raises(UsageError, match="gpt-256"):
        ranks.bench_ranks("gpt-9")
    with pytest.raises(UsageError, match="torch-fsdp"):
        ranks.bench_ranks("mlp", against=["jax"])
    with pytest.raises(UsageError, match="mlp and shallow"):
        ranks.bench_ranks("gpt-128", against=["products"])
