import numpy as np
import pytest

import minipar
from minipar.bench.rank_worker import STRATEGIES, MiniparRank, timed
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
