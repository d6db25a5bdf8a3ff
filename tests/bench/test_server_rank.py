"""Workers that are timed train what data parallel trains; `bench ps` measures something."""

import numpy as np
import pytest

import minipar
from minipar.bench.rank_worker import MiniparRank
from minipar.bench.server_rank import ServedRank, bench_ps, lines, serve_workload
from minipar.bench.workloads import WORKLOADS
from minipar.parallel.parameter_server import Roles

WORK = WORKLOADS["shallow"]
STEPS = 2


def served(group):
    roles = Roles(group)
    if roles.is_server:
        return serve_workload(roles, WORK, "ps-sync")
    worker = ServedRank(WORK, roles)
    losses = [worker.step(*worker.batch(n)) for n in range(STEPS)]
    with worker.parallel.whole() as model:
        weights = model.state_dict()
    worker.parallel.close()
    return losses, weights


def data_parallel(group):
    rank = MiniparRank(WORK, "dp", group)
    return [rank.step(*rank.batch(n)) for n in range(STEPS)], rank.model.state_dict()


def test_workers_train_what_ranks_in_data_parallel_train():
    *ours, _ = minipar.run(served, 3)
    theirs = minipar.run(data_parallel, 2)
    for (losses, weights), (expected, same) in zip(ours, theirs):
        assert losses == pytest.approx(expected, rel=1e-5)
        for name, w in same.items():
            np.testing.assert_allclose(weights[name], w, atol=1e-6)


def test_bench_ps_has_a_row_for_each_thing():
    rows = bench_ps(nbytes=4096, rows=10, times=2)
    assert [row["what"] for row in rows] == ["pull", "push", "pull rows", "push rows"]
    assert [row["bytes"] for row in rows] == [4096, 4096, 2560, 2560]
    for row, line in zip(rows, list(lines(rows))[1:]):
        assert row["gb_s"] == pytest.approx(row["bytes"] / row["seconds"] / 1e9) and row["gb_s"] > 0
        assert line.startswith(row["what"])
