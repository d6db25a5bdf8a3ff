import numpy as np
import pytest

import minipar
from minipar.bench.rank_worker import STRATEGIES, TENSOR, MiniparRank, TensorRank, timed
from minipar.bench.workloads import WORKLOADS


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks_train_on_other_batches_and_keep_the_same_weights(strategy):
    def work(group):
        rank = MiniparRank(WORKLOADS["shallow"], strategy, group)
        x, _ = rank.batch(0)
        answer = timed(rank, range(2))
        return x, rank.model.state_dict(), answer

    (x, state, answer), (x_1, state_1, _) = minipar.run(work, 2)
    assert (x != x_1).any() and all((state[n] == state_1[n]).all() for n in state)
    assert len(answer["step_ms"]) == 2 and 0 < answer["comm_ms"] < sum(answer["step_ms"])
    assert np.isfinite(state["layers.0.weight"]).all()


@pytest.mark.parametrize("strategy", TENSOR)
def test_ranks_that_share_the_matrices_train_on_one_batch(strategy):
    def work(group):
        small = WORKLOADS["gpt-128"]
        sizes = {**small.sizes, "layers": 1, "d": 8, "heads": 2}
        rank = TensorRank(small._replace(sizes=sizes), strategy, group)
        x, _ = rank.batch(0)
        answer = timed(rank, range(2))
        return x, rank.model.state_dict(), answer

    (x, state, answer), (x_1, state_1, _) = minipar.run(work, 2)
    assert (x == x_1).all()
    assert (state["token.weight"] != state_1["token.weight"]).any()
    norm, norm_1 = state["norm.weight"], state_1["norm.weight"]
    assert (norm == norm_1).all() and np.isfinite(norm).all()
    assert len(answer["step_ms"]) == 2 and answer["comm_ms"] > 0
